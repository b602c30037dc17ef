//! How the process ends: a code for scripts, and one block on stderr for people.
//!
//! The codes are those of sysexits.h where it has one. A closed pipe (`pointsman traces export | head`) is no failure.

use std::io;
use std::process::ExitCode;

use anyhow::Error;
use pointsman_client::{ClientError, Fault, UNREACHABLE};

use super::input::InputFault;

/// The table of exit codes at the end of `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0   done
  2   usage: a flag or a file of the command line is wrong
  64  the daemon refused the request as wrong (also: name taken, wrong state)
  65  not found, or pruned
  69  unavailable: no daemon there, draining, or all models failed
  70  internal fault
  75  temporary: budget or another limit reached, or the deadline passed
  77  not permitted";

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// A flag or a file of the command line is wrong.
    Usage,
    /// The daemon refused the request as wrong.
    Invalid,
    /// Not found.
    NotFound,
    /// No daemon, draining, or all models failed.
    Unavailable,
    /// A fault of the daemon or of this program.
    Internal,
    /// A limit is reached or the deadline passed.
    Temporary,
    /// Not permitted.
    Denied,
}

impl Exit {
    /// The code of the process.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::Invalid => 64,
            Self::NotFound => 65,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Temporary => 75,
            Self::Denied => 77,
        }
    }

    /// How the process ends after this failure.
    pub(crate) fn of(error: &Error) -> Self {
        if let Some(error) = error.downcast_ref::<ClientError>() {
            return Self::of_call(error);
        }
        if error.downcast_ref::<InputFault>().is_some() {
            return Self::Usage;
        }
        let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(broken_pipe) {
            return Self::Ok;
        }
        Self::Internal
    }

    /// How the process ends after this call.
    pub(crate) fn of_call(error: &ClientError) -> Self {
        match error {
            ClientError::Invalid(_) | ClientError::Conflict(_) => Self::Invalid,
            ClientError::NotFound(_) => Self::NotFound,
            ClientError::Unavailable(_) => Self::Unavailable,
            ClientError::Exhausted(_) | ClientError::Deadline(_) => Self::Temporary,
            ClientError::Denied(_) => Self::Denied,
            ClientError::Internal(_) => Self::Internal,
        }
    }

    /// How the process ends after an item of a stream was refused with this gRPC code.
    pub(crate) fn of_item(code: i32) -> Self {
        let status = tonic::Status::new(tonic::Code::from_i32(code), "");
        Self::of_call(&ClientError::from(status))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The failure as one block: what, which field, what to do.
pub(crate) fn block(error: &Error) -> String {
    let mut text = format!("error: {error:#}\n");
    if let Some(error) = error.downcast_ref::<ClientError>() {
        details(&mut text, error.fault());
        text += &format!("  {}\n", advice(error));
    }
    text
}

fn details(text: &mut String, fault: &Fault) {
    for violation in &fault.violations {
        *text += &format!("  field {}: {}\n", violation.field, violation.description);
    }
    for quota in &fault.quota {
        *text += &format!("  limit {}: {}\n", quota.subject, quota.description);
    }
    if !fault.reason.is_empty() {
        *text += &format!("  reason: {}\n", fault.reason);
    }
    for (name, value) in &fault.metadata {
        *text += &format!("  {name}: {value}\n");
    }
    if let Some(wait) = fault.retry_after {
        *text += &format!("  try again in {:.1} s\n", wait.as_secs_f64());
    }
}

fn advice(error: &ClientError) -> &'static str {
    match error {
        ClientError::Invalid(fault) if fault.violations.is_empty() => "what to do: see the message",
        ClientError::Invalid(_) => "what to do: change the named fields; see --help",
        ClientError::Conflict(fault) => conflict_advice(&fault.reason),
        ClientError::NotFound(_) => {
            "what to do: check the id or name; old decisions may be pruned (`pointsman store`)"
        }
        ClientError::Unavailable(fault) if fault.reason == UNREACHABLE => {
            "what to do: start pointsmand, or name its address with --address or POINTSMAN_ADDRESS"
        }
        ClientError::Unavailable(_) => {
            "what to do: `pointsman health` and `pointsman models list` show what serves"
        }
        // Waiting does not help against a limit that the request brings along.
        ClientError::Exhausted(fault) if fault.reason == "REQUEST_CAP" => {
            "what to do: raise --max-cost-usd-micros or lower --output-tokens-max"
        }
        ClientError::Exhausted(_) => "what to do: wait, or see what is left with `pointsman budget`",
        ClientError::Deadline(_) => "what to do: try again, or give more time with --timeout",
        ClientError::Denied(fault) if fault.reason == "UNAUTHENTICATED" => {
            "what to do: put a valid key into POINTSMAN_KEY, or into a file named by --key-file"
        }
        ClientError::Denied(_) => "what to do: use a key with the scope, or ask who runs the daemon",
        ClientError::Internal(_) => {
            "what to do: see the daemon's log; client and daemon may be of different versions"
        }
    }
}

fn conflict_advice(reason: &str) -> &'static str {
    match reason {
        "UNEVALUATED" => "what to do: run `pointsman evaluate` on it first, or promote with --force",
        "GATE_FAILED" => {
            "what to do: try it on a --share, train on more feedback, or promote with --force and say why in --reason"
        }
        "TOO_FEW_TRACES" | "ONE_CLASS" => {
            "what to do: give more feedback, right and wrong, or bring logs in with `pointsman traces import`"
        }
        "KEY_INACTIVE" => "what to do: make a new key with `pointsman keys create`",
        "ARTIFACT_SCHEMA" => "what to do: train on this daemon's traces, see `pointsman train`",
        "ARTIFACT_CORRUPT" => "what to do: train it anew, or install the artifact again",
        "TRAINING_RUNNING" => "what to do: wait for the training that is under way, see `pointsman report`",
        "CANARY_RUNNING" => {
            "what to do: wait for the canary that is under way, or end it with `pointsman rollback`"
        }
        "ALREADY_RUNNING" | "NO_PREDECESSOR" => "what to do: see what runs with `pointsman policies list`",
        _ => "what to do: look at what is there already, then change one",
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn check(code: Code, expected: u8) {
        let error = Error::new(ClientError::from(Status::new(code, "x")));
        assert_eq!(Exit::of(&error).code(), expected, "{code:?}");
    }

    #[test]
    fn codes_for_scripts() {
        check(Code::InvalidArgument, 64);
        check(Code::AlreadyExists, 64);
        check(Code::NotFound, 65);
        check(Code::Unavailable, 69);
        check(Code::ResourceExhausted, 75);
        check(Code::DeadlineExceeded, 75);
        check(Code::PermissionDenied, 77);
        check(Code::Internal, 70);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert_eq!(Exit::of(&error), Exit::Ok);
        let error = Error::new(io::Error::from(io::ErrorKind::Other));
        assert_eq!(Exit::of(&error), Exit::Internal);
    }

    #[test]
    fn the_block_names_the_field() {
        let details = ErrorDetails::with_bad_request_violation("request.prompt", "is empty");
        let status = Status::with_error_details(Code::InvalidArgument, "1 fault", details);
        let text = block(&Error::new(ClientError::from(status)));
        assert!(text.starts_with("error: 1 fault\n  field request.prompt: is empty\n"));
    }
}
