//! What a command reads besides its flags: `@FILE`, `-` for stdin, JSON Lines, gzipped or not.
//!
//! Every failure here is the caller's to mend, so each ends the process with the code of a usage error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

/// Longest text that is read from a file or stdin, in bytes.
const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is wrong with the command line or with a file that it names.
#[derive(Debug, Error)]
pub(crate) enum InputFault {
    /// A flag, or the lack of one.
    #[error("{flag}: {why}")]
    Flag {
        /// The flag or argument.
        flag: &'static str,
        /// What is wrong and what to write.
        why: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Its path, or `stdin`.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line of a file.
    #[error("{path}, line {line}: {why}")]
    Line {
        /// Path of the file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// A fault of a flag.
pub(crate) fn flag(flag: &'static str, why: impl Into<String>) -> InputFault {
    InputFault::Flag { flag, why: why.into() }
}

/// The text of an argument: `@FILE` is read from the file, `-` from stdin, `@@…` is text that begins with `@`.
pub(crate) fn text(argument: &str) -> Result<String, InputFault> {
    if argument == "-" {
        return read_all(io::stdin().lock(), "stdin");
    }
    match argument.strip_prefix('@') {
        None => Ok(argument.to_owned()),
        Some(rest) if rest.starts_with('@') => Ok(rest.to_owned()),
        Some(path) => read_all(open(path)?, path),
    }
}

/// Like [`text`]; without an argument, stdin if it is not a terminal.
pub(crate) fn text_or_stdin(argument: Option<&str>, name: &'static str) -> Result<String, InputFault> {
    match argument {
        Some(argument) => text(argument),
        None if io::stdin().is_terminal() => {
            Err(flag(name, "is missing; give it as text, as @FILE, or through stdin"))
        }
        None => text("-"),
    }
}

/// The lines of a file, unpacked when its name ends in `.gz`; `-` is stdin.
pub(crate) fn lines(path: &str) -> Result<Box<dyn BufRead>, InputFault> {
    if path == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = open(path)?;
    if path.ends_with(".gz") {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))))
    } else {
        Ok(Box::new(BufReader::new(file)))
    }
}

/// Reads JSON Lines: calls `read` with each line that is not blank.
pub(crate) fn each_line<T>(
    path: &str,
    mut read: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, InputFault> {
    let mut items = Vec::new();
    for (index, line) in lines(path)?.lines().enumerate() {
        let line = line.map_err(|source| file_fault(path, source))?;
        if line.trim().is_empty() {
            continue;
        }
        items.push(read(&line).map_err(|why| InputFault::Line { path: path.to_owned(), line: index + 1, why })?);
    }
    Ok(items)
}

/// A fault of a file.
pub(crate) fn file_fault(path: &str, source: io::Error) -> InputFault {
    InputFault::File { path: path.to_owned(), source }
}

fn open(path: &str) -> Result<File, InputFault> {
    File::open(path).map_err(|source| file_fault(path, source))
}

fn read_all(reader: impl io::Read, path: &str) -> Result<String, InputFault> {
    let mut text = String::new();
    reader.take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(|source| file_fault(path, source))?;
    // A file or a pipe nearly always ends with a line feed that nobody meant to ask.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_signs() {
        let check = |argument: &str, expected: &str| {
            assert_eq!(text(argument).expect(argument), expected);
        };
        check("plain", "plain");
        check("@@handle", "@handle");
        assert!(matches!(text("@no/such/file"), Err(InputFault::File { .. })));
    }
}
