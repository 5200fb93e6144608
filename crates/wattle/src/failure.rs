//! How commands fail: one paragraph on stderr and an exit code.

use std::process::ExitCode;

use wattle_jobs::{ErrorKind, JobError};
use wattle_report::visible_lines;

use crate::flags;

/// Why a command ended without its result.
#[derive(Debug)]
pub enum Failure {
    /// What was given cannot be used: exit code 2.
    Input(String),
    /// What was given is fine, but the run failed: exit code 1.
    Run(String),
    /// A signal ended it before its end, which jobs with networks listen for: exit code 128 plus the signal, as in a shell.
    #[cfg(feature = "networks")]
    Interrupted(String, u8),
    /// The command that was measured ended with this exit code, and so does wattle; there is nothing to say.
    Passed(u8),
}

impl Failure {
    /// An input failure at a place: a file, a flag.
    pub fn at(place: impl std::fmt::Display, reason: impl std::fmt::Display) -> Failure {
        Failure::Input(format!("{place}: {reason}"))
    }

    /// Prints the paragraph; returns the exit code.
    #[allow(clippy::print_stderr, reason = "the one place where failures reach the user")]
    pub fn report(&self) -> ExitCode {
        let (text, code) = match self {
            Failure::Input(text) => (text, 2),
            Failure::Run(text) => (text, 1),
            #[cfg(feature = "networks")]
            Failure::Interrupted(text, signal) => (text, signal.saturating_add(128)),
            Failure::Passed(code) => return ExitCode::from(*code),
        };
        eprintln!("wattle: {}", visible_lines(&flags::typed(text)));
        ExitCode::from(code)
    }
}

impl From<JobError> for Failure {
    /// An option is called by its flag here.
    fn from(error: JobError) -> Failure {
        let text = match error.option_name() {
            Some(name) => format!("--{}: {}", name.replace('_', "-"), error.text()),
            None => error.text().to_owned(),
        };
        match error.kind() {
            ErrorKind::Input => Failure::Input(text),
            ErrorKind::Run => Failure::Run(text),
            ErrorKind::Cancelled => cancelled(text),
        }
    }
}

/// By a signal, if one came.
fn cancelled(text: String) -> Failure {
    #[cfg(feature = "networks")]
    if let Some(signal) = wattle_jobs::interruption::signal() {
        return Failure::Interrupted(text, signal);
    }
    Failure::Run(text)
}

#[cfg(feature = "networks")]
mod networks {
    use wattle_engine::EngineError;
    use wattle_graph::GraphError;
    use wattle_graph::onnx::OnnxError;

    use super::Failure;

    impl From<OnnxError> for Failure {
        fn from(error: OnnxError) -> Failure {
            Failure::Input(error.to_string())
        }
    }

    impl From<wattle_accel::AccelError> for Failure {
        fn from(error: wattle_accel::AccelError) -> Failure {
            Failure::Input(error.to_string())
        }
    }

    impl From<GraphError> for Failure {
        fn from(error: GraphError) -> Failure {
            Failure::Input(error.to_string())
        }
    }

    impl From<EngineError> for Failure {
        fn from(error: EngineError) -> Failure {
            match error {
                EngineError::Node { .. } | EngineError::OutOfMemory(_) | EngineError::Defect(_) => {
                    Failure::Run(error.to_string())
                }
                _ => Failure::Input(error.to_string()),
            }
        }
    }

    impl From<wattle_data::Error> for Failure {
        fn from(error: wattle_data::Error) -> Failure {
            match error.kind() {
                wattle_data::ErrorKind::Input => Failure::Input(error.to_string()),
                _ => Failure::Run(error.to_string()),
            }
        }
    }
}
