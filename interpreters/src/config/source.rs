//! The text of a configuration file, and what is wrong where in it.

use std::fmt;
use std::path::{Path, PathBuf};

use fcgi_core::inherit;
use fcgi_core::supervisor::Kept;

/// Where in the file something stands; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What the user must mend.
#[derive(Clone, Debug)]
pub(crate) struct Mistake {
    file: PathBuf,
    pub(crate) at: Option<Place>,
    pub(crate) text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// What the file said when the parent read it, in the environment of its workers and of the program that it becomes.
pub(crate) const TEXT: &str = "FCGI_CONFIG_TEXT";
/// So long a variable may be.
const LONGEST: usize = 100 << 10;

/// A file that has been read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Reads a file. A worker is told what its parent has read: the file may have been edited since, and nobody has asked for a
    /// reload. A program that somebody becomes is told what has been found fit.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    pub(crate) fn read(path: &Path) -> Result<Self, Mistake> {
        if let (true, Ok(text)) = (inherit::is_worker() || Kept::are_there(), std::env::var(TEXT)) {
            return Ok(Self { path: path.to_owned(), text });
        }
        let at_all = |text: String| Mistake { file: path.to_owned(), at: None, text };
        let bytes = std::fs::read(path).map_err(|e| at_all(format!("cannot read it: {e} (--config)")))?;
        let source = |text: String| Self { path: path.to_owned(), text };
        String::from_utf8(bytes).map(source).map_err(|e| {
            let good = e.utf8_error().valid_up_to();
            let before = source(String::from_utf8_lossy(&e.into_bytes()[..good]).into_owned());
            before.mistake(good, "this is not UTF-8".to_owned())
        })
    }

    /// What others are told of it, if it can be told in a variable.
    pub(crate) fn passed_on(&self) -> Option<String> {
        (self.text.len() <= LONGEST && !self.text.contains('\0')).then(|| self.text.clone())
    }

    /// The directory that relative paths are relative to.
    pub(crate) fn directory(&self) -> PathBuf {
        let parent = self.path.parent().unwrap_or(Path::new(""));
        std::path::absolute(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
            .unwrap_or_else(|_| parent.to_owned())
    }

    /// The place of a byte.
    pub(crate) fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    /// Something wrong at a byte.
    pub(crate) fn mistake(&self, at: usize, text: String) -> Mistake {
        self.wrong(self.place(at), text)
    }

    /// Something wrong at a place.
    pub(crate) fn wrong(&self, at: Place, text: String) -> Mistake {
        Mistake { file: self.path.clone(), at: Some(at), text }
    }
}

/// The name among those that are known that somebody may have meant, as a question.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    const ALIKE: f64 = 0.75;
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score > ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map_or_else(String::new, |(_, candidate)| format!(": did you mean \"{candidate}\"?"))
}
