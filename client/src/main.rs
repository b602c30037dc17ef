//! `pointsman`: the command line of the daemon.
//!
//! It reads arguments, makes one or a few calls, prints, and ends with a code that scripts can use. It must never
//! decide anything that the daemon decides. `cli` is the tour: `args` what may be asked, one file for each group of
//! commands, `tables` and `json` the two ways to print, `exit` the codes.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
