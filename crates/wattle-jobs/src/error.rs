//! The one error of jobs: whose fault it is, which option or place it concerns, and what to do.

use std::fmt;

/// The result of every job.
pub type Result<T> = std::result::Result<T, JobError>;

/// Which side a failure is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was given cannot be used.
    Input,
    /// What was given is fine, but the run failed.
    Run,
    /// The observer asked for an end.
    Cancelled,
}

/// Why a job ended without its result, in one paragraph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    kind: ErrorKind,
    option: Option<&'static str>,
    text: String,
}

impl JobError {
    /// What was given cannot be used.
    pub fn input(text: impl fmt::Display) -> JobError {
        JobError { kind: ErrorKind::Input, option: None, text: text.to_string() }
    }

    /// What was given cannot be used, at a place: a file, a variable.
    pub fn at(place: impl fmt::Display, reason: impl fmt::Display) -> JobError {
        JobError::input(format_args!("{place}: {reason}"))
    }

    /// An option has a value that cannot be used; `name` is its field, such as `max_rounds`.
    pub fn option(name: &'static str, reason: impl fmt::Display) -> JobError {
        JobError { option: Some(name), ..JobError::input(reason) }
    }

    /// What was given is fine, but the run failed.
    pub fn run(text: impl fmt::Display) -> JobError {
        JobError { kind: ErrorKind::Run, option: None, text: text.to_string() }
    }

    /// The observer asked for an end.
    pub fn cancelled() -> JobError {
        JobError {
            kind: ErrorKind::Cancelled,
            option: None,
            text: "stopped before its end; what is done is kept, and the same command goes on from there"
                .into(),
        }
    }

    /// The same error with the place it concerns in front.
    pub fn context(self, place: impl fmt::Display) -> JobError {
        JobError { text: format!("{place}: {}", self.text), ..self }
    }

    /// The same error as one of this option.
    pub fn of(self, option: &'static str) -> JobError {
        JobError { option: Some(option), ..self }
    }

    /// Which side it is on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The field of the options that it concerns, if it is one.
    pub fn option_name(&self) -> Option<&'static str> {
        self.option
    }

    /// The paragraph without the option's name, for faces that call options otherwise.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.option {
            Some(name) => write!(f, "{name}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for JobError {}

#[cfg(feature = "networks")]
mod networks {
    use wattle_accel::AccelError;
    use wattle_engine::EngineError;
    use wattle_graph::GraphError;
    use wattle_graph::onnx::OnnxError;

    use super::JobError;

    impl From<OnnxError> for JobError {
        fn from(error: OnnxError) -> JobError {
            JobError::input(error)
        }
    }

    impl From<GraphError> for JobError {
        fn from(error: GraphError) -> JobError {
            JobError::input(error)
        }
    }

    impl From<AccelError> for JobError {
        fn from(error: AccelError) -> JobError {
            JobError::input(error)
        }
    }

    impl From<EngineError> for JobError {
        fn from(error: EngineError) -> JobError {
            match error {
                EngineError::Node { .. } | EngineError::OutOfMemory(_) | EngineError::Defect(_) => {
                    JobError::run(error)
                }
                _ => JobError::input(error),
            }
        }
    }

    impl From<wattle_data::Error> for JobError {
        fn from(error: wattle_data::Error) -> JobError {
            match error.kind() {
                wattle_data::ErrorKind::Input => JobError::input(error),
                _ => JobError::run(error),
            }
        }
    }
}
