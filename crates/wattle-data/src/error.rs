//! The one error of this crate: the place, what was found, what was expected, and what to do about it.

use std::fmt;
use std::path::Path;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Which side a failure is on; the command line turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What the user gave is wrong: an option, a path, the bytes of a file (exit code 2).
    Input,
    /// The machine failed: a full disk, a directory that cannot be written, a read error (exit code 1).
    Machine,
    /// Another live process holds the run directory (exit code 1).
    Busy,
}

/// A failure, told in one paragraph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    place: String,
    found: String,
    expected: Option<String>,
    remedy: Option<String>,
}

impl Error {
    /// A fault in what the user gave, at `place` (a file, a row, an option).
    pub fn input(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Input, place, found)
    }

    /// A fault of the machine while doing something at `place`.
    pub fn machine(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Machine, place, found)
    }

    /// Something at `place` is held by another live process.
    pub fn busy(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Busy, place, found)
    }

    /// An I/O error while reading `path`; a missing or unreadable file is the user's to mend, the rest the machine's.
    pub fn reading(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => Self::input(path.display(), "no such file or directory")
                .remedy("check the spelling, or create it first"),
            Io::PermissionDenied => Self::input(path.display(), "permission to read it was denied")
                .remedy("change its permissions or run as its owner"),
            _ => Self::machine(path.display(), format_args!("it could not be read ({error})")),
        }
    }

    /// An I/O error while writing `path`.
    pub fn writing(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let failure = Self::machine(path.display(), format_args!("it could not be written ({error})"));
        match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => failure.remedy(
                "free some space or choose another output directory; files written earlier are untouched",
            ),
            Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory | Io::AlreadyExists => {
                failure.remedy("choose a directory that may be written; files written earlier are untouched")
            }
            _ => failure.remedy("files written earlier are untouched; mend the cause and run again"),
        }
    }

    /// Adds what was expected instead.
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self
    }

    /// Adds what the user can do.
    pub fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy = Some(remedy.to_string());
        self
    }

    /// Which side the failure is on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the user can do, if anything is known.
    pub fn hint(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    fn new(kind: ErrorKind, place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { kind, place: place.to_string(), found: found.to_string(), expected: None, remedy: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.found)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\nhint: {remedy}")?;
        }
        Ok(())
    }
}
