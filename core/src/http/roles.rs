//! The roles that a web server can give to scripts besides answering (FastCGI, section 6): one that lets requests in, some
//! that transform files, one that takes the log. Common web servers ask for the first alone; the front asks for all.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::backend::{Answer, Question, Stdin};
use super::variables::{self, Target};
use super::{Asked, Body, files, finish};
use crate::protocol::{Params, Role};
use crate::response;

/// Scripts with roles of their own.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// Is asked about each request, before it is answered: with status 200 it goes on, and what the script says in headers
    /// `Variable-NAME` becomes variables of the request; any other answer is the client's.
    pub authorizer: Option<PathBuf>,
    /// Transform files of [`Config::static_dir`](super::Config::static_dir). The first one whose pattern fits counts.
    pub filters: Vec<Filter>,
    /// Takes a line for each request that was answered, in the combined format of Apache and nginx.
    pub logger: Option<PathBuf>,
}

impl Roles {
    /// All their scripts.
    pub fn scripts(&self) -> impl Iterator<Item = &Path> {
        let filters = self.filters.iter().map(|filter| &filter.script);
        self.authorizer.iter().chain(filters).chain(&self.logger).map(PathBuf::as_path)
    }
}

/// A script for files whose names fit a pattern. Written as `PATTERN=SCRIPT`, such as `*.md=page.lua`.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of the file's name; with a slash in it, of its path below the directory.
    pub pattern: glob::Pattern,
    /// The script.
    pub script: PathBuf,
}

/// Why a text is no [`Filter`].
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// There is no equals sign, or nothing on one of its sides.
    #[error("write PATTERN=SCRIPT, such as '*.md=page.lua'")]
    Form,
    /// The pattern is none.
    #[error("in the pattern: {0}")]
    Pattern(#[from] glob::PatternError),
}

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        // Names of scripts have no equals sign more often than patterns have none.
        let (pattern, script) = text.rsplit_once('=').ok_or(BadFilter::Form)?;
        if pattern.is_empty() || script.is_empty() {
            return Err(BadFilter::Form);
        }
        Ok(Self { pattern: glob::Pattern::new(pattern)?, script: script.into() })
    }
}

impl Filter {
    /// Whether a file of the directory is for it.
    fn is_for(&self, file: &Path, directory: &Path) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let by_path = self.pattern.as_str().contains('/');
        let shown = if by_path { file.strip_prefix(directory).ok() } else { file.file_name().map(Path::new) };
        shown.is_some_and(|shown| self.pattern.matches_path_with(shown, options))
    }
}

/// What stands before the name of a variable in an authorizer's answer (FastCGI, section 6.3).
const VARIABLE: &[u8] = b"Variable-";

/// What an authorizer says.
pub(super) enum Authorized {
    /// The request goes on, with these variables besides its own.
    With(Params),
    /// The client gets this answer.
    Not(Response<Body>),
}

/// Asks the authorizer, if there is one.
pub(super) async fn authorize(asked: &Asked<'_>) -> Authorized {
    let shared = asked.shared;
    let Some(script) = &shared.config.roles.authorizer else { return Authorized::With(Params::new()) };
    let Parts { method, uri, .. } = &asked.parts;
    let target = Target { script: script.clone(), name: Vec::new(), path_info: Vec::new() };
    let params = variables::for_authorizer(asked.params(method, uri, &target, &Params::new()));
    // The request's body is not for it.
    let question = Question {
        role: Role::Authorizer,
        params: &params,
        stdin: Stdin::None,
        data: None,
        body_timeout: shared.timeouts.body,
    };
    let answered = async {
        let mut answer = Answer::ask(&shared.config.backend, question).await?;
        let head = answer.cgi_head(shared.timeouts.answer).await?;
        if head.status != StatusCode::OK.as_u16() {
            let head = answer.http_head(head)?;
            return Ok(Authorized::Not(finish(method, head, answer, shared)));
        }
        answer.discard(shared.unfinished.clone());
        Ok(Authorized::With(variables_in(&head)))
    };
    // One that fails lets nobody in.
    answered.await.unwrap_or_else(|why| Authorized::Not(asked.failed(&why)))
}

fn variables_in(head: &response::Head) -> Params {
    let mut variables = Params::new();
    for (name, value) in &head.headers {
        if let Some((prefix, name)) = name.split_at_checked(VARIABLE.len())
            && prefix.eq_ignore_ascii_case(VARIABLE)
            && !name.is_empty()
        {
            variables.set(name, value);
        }
    }
    variables
}

/// Has a filter answer, if the path names a file for one. `variables` are the authorizer's.
pub(super) async fn filter(asked: &Asked<'_>, variables: &Params) -> Option<Response<Body>> {
    let config = &asked.shared.config;
    let directory = config.static_dir.as_ref().filter(|_| !config.roles.filters.is_empty())?;
    let Parts { method, uri, .. } = &asked.parts;
    let (path, file) = files::open_below(directory, &config.site, uri.path()).await?;
    let root = directory.canonicalize().ok()?;
    let filter = config.roles.filters.iter().find(|filter| filter.is_for(&path, &root))?;
    let meta = file.metadata().await.ok().filter(std::fs::Metadata::is_file)?;
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());

    let target = Target { script: filter.script.clone(), name: Vec::new(), path_info: uri.path().as_bytes().to_vec() };
    let mut params = asked.params(method, uri, &target, variables);
    params.set(b"PATH_TRANSLATED", path.as_os_str().as_bytes());
    params.set(b"FCGI_DATA_LENGTH", meta.len().to_string().as_bytes());
    params.set(b"FCGI_DATA_LAST_MOD", modified.map_or(0, |since| since.as_secs()).to_string().as_bytes());
    Some(match asked.ask(Role::Filter, &params, Some(file)).await {
        Ok((head, answer)) => finish(method, head, answer, asked.shared),
        Err(why) => asked.failed(&why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let root = Path::new("/srv/static");
        for (text, fits, fits_not) in [
            ("*.md=page.lua", &["a.md", "deep/b.md"][..], &["a.mdx", "md", ".md/x"][..]),
            ("notes/*.txt=/srv/t.lua", &["notes/a.txt"], &["a.txt", "notes/deep/a.txt", "other/notes/a.txt"]),
            ("**/a=b.txt=x.lua", &["d/a=b.txt", "a=b.txt"], &["b.txt"]),
        ] {
            let filter: Filter = text.parse().unwrap();
            for file in fits {
                assert!(filter.is_for(&root.join(file), root), "{text} {file}");
            }
            for file in fits_not {
                assert!(!filter.is_for(&root.join(file), root), "{text} {file}");
            }
        }
        for bad in ["", "*.md", "=x.lua", "*.md=", "[=x"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
