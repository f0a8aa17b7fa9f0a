//! Scripts with other roles than to answer.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use fcgi_core::http;

/// What the HTTP front asks of scripts besides answers. Other web servers ask by themselves.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Roles")]
pub(crate) struct Roles {
    /// With --http: ask this script about each request; status 200 lets it in, any other answer is the client's
    #[arg(long, value_name = "SCRIPT", requires = "http")]
    pub(crate) authorizer: Option<PathBuf>,

    /// With --static: let a script transform files whose names match, such as '*.md=page.lua' (repeatable)
    #[arg(long, value_name = "PATTERN=SCRIPT", requires = "static_dir")]
    pub(crate) filter: Vec<http::Filter>,

    /// With --http: hand a line for each request that was answered to this script
    #[arg(long, value_name = "SCRIPT", requires = "http")]
    pub(crate) logger: Option<PathBuf>,
}

impl Roles {
    /// Whether there are any.
    pub(crate) fn are_given(&self) -> bool {
        self.authorizer.is_some() || !self.filter.is_empty() || self.logger.is_some()
    }

    /// As the front takes them: with absolute paths.
    ///
    /// # Errors
    /// When a script cannot be opened.
    pub(crate) fn of_front(&self) -> anyhow::Result<http::Roles> {
        let script = |path: &Path, option: &str| -> anyhow::Result<PathBuf> {
            std::fs::File::open(path).with_context(|| format!("cannot open {} ({option})", path.display()))?;
            Ok(std::path::absolute(path)?)
        };
        let optional = |path: &Option<PathBuf>, option| path.as_deref().map(|path| script(path, option)).transpose();
        let filter = |filter: &http::Filter| -> anyhow::Result<http::Filter> {
            Ok(http::Filter { script: script(&filter.script, "--filter")?, pattern: filter.pattern.clone() })
        };
        Ok(http::Roles {
            authorizer: optional(&self.authorizer, "--authorizer")?,
            filters: self.filter.iter().map(filter).collect::<anyhow::Result<_>>()?,
            logger: optional(&self.logger, "--logger")?,
        })
    }
}
