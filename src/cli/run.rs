//! `staticgrad run`: prompt in, text out.

use super::ThreadArgs;
use super::model::{Model, ModelArgs};
use super::output::{self, bytes};
use super::profile;
use crate::disk::destination;
use crate::error::{Error, Result};
use crate::exec::{Session, Want, return_freed_memory};
use crate::ops::Capacity;
use crate::text::{EncodeOptions, Sampler, SamplerOptions, StreamDecoder, Tokenizer};
use clap::Args;
use std::io::{ErrorKind, Write};
use std::time::Instant;

/// Options of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Text to continue.
    #[arg(default_value = "", hide_default_value = true)]
    prompt: String,
    #[command(flatten)]
    model: ModelArgs,
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// 0 is greedy; 1 samples from the model's own distribution.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f32,
    /// Sample among the N likeliest tokens; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Sample among the likeliest tokens that hold this share of the probability.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    top_p: f32,
    /// Seed of the sampler: the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print time, arithmetic and traffic per kind of op; with a file name, write a trace that Perfetto opens too.
    #[arg(long, value_name = "TRACE.json", num_args = 0..=1, default_missing_value = "")]
    profile: Option<String>,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// Rows that one prefill call computes at most.
const PREFILL_ROWS: usize = 256;

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<()> {
    let started = Instant::now();
    let threads = args.threads.count()?;
    if let Some(trace) = args.profile.as_deref().filter(|trace| !trace.is_empty()) {
        destination(trace.as_ref())?;
        args.model.keep(trace.as_ref())?;
    }
    let model = Model::open(&args.model)?;
    let tokenizer = model.tokenizer()?;
    let prompt: Vec<i32> =
        tokenizer.encode(&args.prompt, EncodeOptions::PROMPT)?.into_iter().map(|t| t as i32).collect();
    let context = model.context()?;
    if prompt.is_empty() {
        let taken = args.profile.as_deref().filter(|trace| !trace.is_empty());
        let hint = taken.map_or_else(String::new, |trace| {
            format!("; --profile took '{trace}' as the name of the trace: put --profile last if it is the prompt")
        });
        let message = format!("the prompt is empty and the model has no start token; give some text{hint}");
        return Err(Error::Request(message));
    }
    if prompt.len() >= context {
        return Err(Error::Request(format!(
            "the prompt has {} tokens, but the context is {context} rows and one must stay free; shorten it",
            prompt.len()
        )));
    }
    let rows = (prompt.len().saturating_add(args.max_tokens)).min(context);
    let step_rows = prompt.len().min(PREFILL_ROWS);
    let plan = model.plan(Capacity { slots: 1, context: rows, step_rows, wanted_rows: 1 })?;
    let store = model.store(&plan)?;
    let mut session = Session::new(&plan, threads, &|name| store.get(name))?;
    let options =
        SamplerOptions { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p, seed: args.seed };
    let mut sampler = Sampler::new(options, session.vocabulary())?;
    drop(model);
    return_freed_memory();
    let loaded = started.elapsed();

    if let Some(trace) = &args.profile {
        session.executor_mut().set_profile(true, !trace.is_empty());
    }
    let mut out = Stream::new(&tokenizer);
    out.text(&args.prompt)?;
    let clock = Instant::now();
    session.advance_to(0, &prompt)?;
    let prefill = clock.elapsed();
    let clock = Instant::now();
    let mut generated = 0;
    let mut note = "";
    while generated < args.max_tokens {
        let token = sampler.sample(session.logits(0))?;
        if tokenizer.is_end(token) {
            note = "; stopped at the end-of-sequence token";
            break;
        }
        out.token(token)?;
        generated += 1;
        if out.closed {
            break;
        }
        if session.valid_rows(0) == session.context() {
            note = "; stopped at the context limit";
            break;
        }
        if generated < args.max_tokens {
            session.run(&[(0, &[token as i32])], Want::Last)?;
        }
    }
    let decode = clock.elapsed();
    out.finish()?;
    let rate = |n: usize, seconds: f64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    output::note(&format!(
        "load {:.3} s; prefill {} tokens, {:.1} tokens/s; decode {generated} tokens, {:.1} tokens/s; arena {} ({} B), weights {} ({} B){note}",
        loaded.as_secs_f64(),
        prompt.len(),
        rate(prompt.len(), prefill.as_secs_f64()),
        rate(generated, decode.as_secs_f64()),
        bytes(session.executor().arena_bytes() as u64),
        session.executor().arena_bytes(),
        bytes(store.bytes().len() as u64),
        store.bytes().len(),
    ));
    if let Some(trace) = &args.profile {
        let last = session.valid_rows(0);
        let decoded = last - prompt.len();
        let calls = [(prompt.len(), 1, prompt.len(), 1), (1, 1, prompt.len() + decoded / 2, decoded)];
        output::note(profile::table(session.executor(), &store, &calls, 1).trim_end());
        if !trace.is_empty() {
            profile::write_trace(session.executor(), trace.as_ref())?;
        }
    }
    Ok(())
}

/// Standard output, token by token, without ever splitting a character.
struct Stream<'t> {
    tokenizer: &'t Tokenizer,
    decoder: StreamDecoder,
    text: String,
    out: std::io::Stdout,
    /// The reader went away: nothing more is wanted.
    closed: bool,
}

impl<'t> Stream<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Self {
        Stream {
            tokenizer,
            decoder: StreamDecoder::new(),
            text: String::with_capacity(64),
            out: std::io::stdout(),
            closed: false,
        }
    }

    fn text(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        match written {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(|e| Error::io("standard output", "write", e)),
        }
    }

    fn token(&mut self, token: u32) -> Result<()> {
        self.text.clear();
        self.decoder.push(self.tokenizer.token_bytes(token)?, &mut self.text);
        let text = std::mem::take(&mut self.text);
        let done = self.text(&text);
        self.text = text;
        done
    }

    fn finish(&mut self) -> Result<()> {
        self.text.clear();
        self.decoder.finish(&mut self.text);
        self.text.push('\n');
        let text = std::mem::take(&mut self.text);
        self.text(&text)
    }
}
