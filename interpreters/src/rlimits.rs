//! Limits of the system's, as `--rlimit` says them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Names as in `ulimit` and systemd's `Limit...=`; the unit is that of setrlimit(2).
const NAMES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// One limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    name: &'static str,
    resource: Resource,
    /// `None` is no limit.
    soft: Option<u64>,
    /// The same as `soft` when it was not said.
    hard: Option<u64>,
}

impl Limit {
    /// `NAME=SOFT[:HARD]`.
    ///
    /// # Errors
    /// What is accepted.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or("write NAME=SOFT or NAME=SOFT:HARD, such as nofile=4096")?;
        let (name, resource) =
            NAMES.iter().copied().find(|(known, _)| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
                let names = NAMES.map(|(name, _)| name);
                format!("'{name}' is no limit: the limits are {}", names.join(", "))
            })?;
        let (soft, hard) = values.split_once(':').map_or((values, values), |both| both);
        let limit = Self { name, resource, soft: amount(soft)?, hard: amount(hard)? };
        let is_less = limit.hard.is_some_and(|hard| limit.soft.is_none_or(|soft| soft > hard));
        if is_less { Err(format!("{name}: the soft limit is above the hard one")) } else { Ok(limit) }
    }

    /// Sets it for this process.
    ///
    /// # Errors
    /// What to do when the system refuses.
    pub(crate) fn set(self) -> anyhow::Result<()> {
        let new = Rlimit { current: self.soft, maximum: self.hard };
        setrlimit(self.resource, new).map_err(|e| {
            let now = getrlimit(self.resource).maximum.map_or("unlimited".to_owned(), |hard| hard.to_string());
            anyhow::anyhow!(
                "cannot set the limit {}: {e}; only root can raise the hard limit, which is {now} (--rlimit)",
                self.name
            )
        })
    }
}

fn amount(text: &str) -> Result<Option<u64>, String> {
    if matches!(text, "unlimited" | "infinity") {
        return Ok(None);
    }
    match crate::options::size(text) {
        Ok(amount) => Ok(Some(amount as u64)),
        Err(_) => {
            Err(format!("'{text}' is no limit: write a number, with K, M or G for multiples of 1024, or unlimited"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, soft, hard) in [
            ("nofile=4096", Some(4096), Some(4096)),
            ("NOFILE=1K:unlimited", Some(1024), None),
            ("core=0:1G", Some(0), Some(1 << 30)),
            ("as=infinity", None, None),
        ] {
            let limit = Limit::parse(text).unwrap();
            assert_eq!((limit.soft, limit.hard), (soft, hard), "{text}");
        }
        for bad in ["", "nofile", "nofile=", "nofile=x", "files=1", "nofile=2:1", "nofile=unlimited:5", "cpu=-1"] {
            assert!(Limit::parse(bad).is_err(), "{bad}");
        }
    }
}
