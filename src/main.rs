//! `staticgrad`: compile, run, train and measure model plans. See [`staticgrad::cli`].

fn main() -> std::process::ExitCode {
    staticgrad::cli::main()
}
