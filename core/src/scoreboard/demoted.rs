//! Scripts that are no longer trusted with an interpreter that others use (`--isolation auto`): known to all processes of a pool,
//! by the hashes of their paths. And what each process runs, so that it is known of one that has died.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::Scoreboard;
use super::memory::{PATH_WORDS, Slot};

/// A table has room for no more scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more scripts than can be remembered")]
pub struct Full;

/// The same in all processes of a pool; never 0, which says that there is none.
fn hash(script: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    script.as_os_str().as_bytes().hash(&mut hasher);
    hasher.finish() | 1
}

impl Scoreboard {
    /// Notes that this process, whose one interpreter has a line, runs a request of a script, or none any more.
    pub fn runs(&self, script: Option<&Path>) {
        let pid = std::process::id();
        let Some(slot) = self.shared.slots().iter().find(|slot| slot.pid.load(Relaxed) == pid) else { return };
        let Some(script) = script else { return slot.script.store(0, Release) };
        let hash = hash(script);
        // Its path is there, if it was the last one.
        if slot.last_script.swap(hash, Relaxed) != hash {
            slot.write_path(script.as_os_str().as_bytes());
        }
        slot.script.store(hash, Release);
    }

    /// The script whose request a process runs: the beginning of its path.
    pub fn script_of(&self, pid: u32) -> Option<PathBuf> {
        let slot = self.shared.slots().iter().find(|slot| slot.pid.load(Relaxed) == pid)?;
        (slot.script.load(Acquire) != 0).then(|| slot.read_path())
    }

    /// Demotes the script whose request a process runs; whether that is new.
    ///
    /// # Errors
    /// [`Full`].
    pub fn demote_what_runs(&self, pid: u32) -> Result<bool, Full> {
        let slot = self.shared.slots().iter().find(|slot| slot.pid.load(Relaxed) == pid);
        let hash = slot.map_or(0, |slot| slot.script.load(Acquire));
        if hash == 0 { Ok(false) } else { self.demote_hash(hash) }
    }

    /// Demotes a script for all processes; whether that is new.
    ///
    /// # Errors
    /// [`Full`].
    pub fn demote(&self, script: &Path) -> Result<bool, Full> {
        self.demote_hash(hash(script))
    }

    fn demote_hash(&self, hash: u64) -> Result<bool, Full> {
        for place in &self.shared.head().demoted {
            match place.compare_exchange(0, hash, AcqRel, Acquire) {
                Ok(_) => return Ok(true),
                Err(known) if known == hash => return Ok(false),
                Err(_) => {}
            }
        }
        Err(Full)
    }

    /// Whether a script has been demoted.
    pub fn is_demoted(&self, script: &Path) -> bool {
        let demoted = &self.shared.head().demoted;
        if demoted[0].load(Acquire) == 0 {
            return false;
        }
        let hash = hash(script);
        demoted.iter().map(|place| place.load(Acquire)).take_while(|known| *known != 0).any(|known| known == hash)
    }

    /// Trusts all scripts again: they may have been mended.
    pub(crate) fn forget_demoted(&self) {
        // From the end: who reads meanwhile finds some of them, or none.
        self.shared.head().demoted.iter().rev().for_each(|place| place.store(0, Release));
    }
}

impl Slot {
    /// A process takes the line.
    pub(super) fn runs_nothing(&self) {
        self.script.store(0, Relaxed);
        self.last_script.store(0, Relaxed);
    }

    /// For a reader who comes when the process has died: nobody else looks.
    fn write_path(&self, path: &[u8]) {
        let mut words = path.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        for place in &self.path {
            place.store(words.next().unwrap_or(0), Relaxed);
        }
    }

    fn read_path(&self) -> PathBuf {
        let mut bytes = Vec::with_capacity(8 * PATH_WORDS);
        self.path.iter().for_each(|word| bytes.extend(word.load(Relaxed).to_ne_bytes()));
        bytes.retain(|byte| *byte != 0);
        std::ffi::OsString::from_vec(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_processes_know_what_is_demoted() {
        let board = Scoreboard::create(2).unwrap();
        let (one, two) = (Path::new("/srv/one.lua"), Path::new("/srv/two.lua"));
        assert!(!board.is_demoted(one));
        assert_eq!(board.demote(one), Ok(true));
        assert_eq!(board.demote(one), Ok(false));
        assert!(board.is_demoted(one) && !board.is_demoted(two));
        board.forget_demoted();
        assert!(!board.is_demoted(one));
        let _seat = board.claim(0).unwrap();
        let pid = std::process::id();
        assert_eq!((board.script_of(pid), board.demote_what_runs(pid)), (None, Ok(false)));
        board.runs(Some(one));
        board.runs(Some(two));
        assert_eq!(board.script_of(pid).as_deref(), Some(two));
        assert_eq!(board.demote_what_runs(pid), Ok(true));
        assert!(board.is_demoted(two) && !board.is_demoted(one));
        board.runs(None);
        assert_eq!(board.script_of(pid), None);
        for number in 0.. {
            if board.demote(Path::new(&format!("/srv/{number}"))) == Err(Full) {
                assert!(number > 100);
                break;
            }
        }
    }
}
