//! A byte-level BPE from its tokens alone: ids are ranks, so the merges follow from them.

use super::super::tokenizer_source::GgufTokenizer;
use super::{CONTROL, NORMAL};
use std::collections::HashMap;

impl GgufTokenizer {
    /// A tokenizer in which encoding merges the adjacent pair whose concatenation has the lowest id, as GPT-2's vocabulary
    /// does (and a vocabulary of single bytes, which has no merges). `special` tokens are text, not pieces of words; `pre`
    /// names the pre-split.
    pub fn byte_level(
        tokens: &[&[u8]],
        special: &[u32],
        bos: Option<u32>,
        eos: Option<u32>,
        pre: &str,
    ) -> GgufTokenizer {
        let is_special = |id: usize| special.iter().any(|s| *s as usize == id);
        let ranks: HashMap<&[u8], usize> =
            tokens.iter().enumerate().filter(|(id, _)| !is_special(*id)).map(|(id, t)| (*t, id)).collect();
        let alphabet = alphabet();
        let spell = |bytes: &[u8]| bytes.iter().map(|b| alphabet[usize::from(*b)]).collect::<String>();
        let merges = (0..tokens.len())
            .filter(|id| !is_special(*id))
            .filter_map(|id| last_merge(tokens[id], id, &ranks))
            .map(|(left, right)| format!("{} {}", spell(left), spell(right)))
            .collect();
        let text = |(id, token): (usize, &&[u8])| {
            if is_special(id) { String::from_utf8_lossy(token).into_owned() } else { spell(token) }
        };
        GgufTokenizer {
            model: "gpt2".into(),
            pre: Some(pre.into()),
            tokens: tokens.iter().enumerate().map(text).collect(),
            token_types: (0..tokens.len()).map(|id| if is_special(id) { CONTROL } else { NORMAL }).collect(),
            merges,
            bos,
            eos,
            add_bos: Some(false),
            ..GgufTokenizer::default()
        }
    }
}

/// The two parts that token `id` is merged from, when tokens of lower ids lead to it.
fn last_merge<'a>(token: &'a [u8], id: usize, ranks: &HashMap<&[u8], usize>) -> Option<(&'a [u8], &'a [u8])> {
    // Ends of the parts so far.
    let mut ends: Vec<usize> = (0..=token.len()).collect();
    while ends.len() > 3 {
        let best = ends
            .windows(3)
            .enumerate()
            .filter_map(|(i, w)| ranks.get(&token[w[0]..w[2]]).filter(|r| **r < id).map(|r| (*r, i)))
            .min()?;
        ends.remove(best.1 + 1);
    }
    (ends.len() == 3).then(|| token.split_at(ends[1]))
}

/// GPT-2's printable alphabet: the character that stands for each byte. Printable Latin-1 characters stand for themselves, the
/// other bytes, in order, for the characters from U+0100 on.
fn alphabet() -> [char; 256] {
    let mut next = 0x100u32;
    std::array::from_fn(|b| match b as u32 {
        own @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => char::from_u32(own).expect("a Latin-1 character"),
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("a character below U+0200")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_follow_from_ranks() {
        let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|b| vec![b]).collect();
        for t in [&b" t"[..], b"he", b" the", b"<|end|>"] {
            tokens.push(t.to_vec());
        }
        let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
        let t = GgufTokenizer::byte_level(&tokens, &[259], None, Some(259), "gpt-2");
        assert_eq!(t.merges, ["Ġ t", "h e", "Ġt he"]);
        assert_eq!((t.tokens[10].as_str(), t.tokens[65].as_str(), t.tokens[258].as_str()), ("Ċ", "A", "Ġthe"));
        assert_eq!((t.tokens[259].as_str(), t.token_types[259]), ("<|end|>", CONTROL));
    }
}
