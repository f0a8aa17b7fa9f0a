//! Users and groups, by their names or numbers.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// A user to become.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Its name; none when the system does not know the number.
    pub(crate) name: Option<String>,
    pub(crate) uid: u32,
    /// Its own group.
    pub(crate) gid: u32,
}

impl Account {
    /// A user by name or number.
    ///
    /// # Errors
    /// When there is no such user.
    pub(crate) fn user(text: &str) -> Result<Self, String> {
        let found = |user: User| Self { name: Some(user.name), uid: user.uid.as_raw(), gid: user.gid.as_raw() };
        let unknown = || format!("there is no user '{text}': `useradd --system {text}` makes one");
        if let Ok(uid) = text.parse::<u32>() {
            let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            return Ok(known.map_or(Self { name: None, uid, gid: uid }, found));
        }
        User::from_name(text).map_err(|e| e.to_string())?.map(found).ok_or_else(unknown)
    }

    /// The number of a group.
    ///
    /// # Errors
    /// When there is no such group.
    pub(crate) fn group(text: &str) -> Result<u32, String> {
        if let Ok(gid) = text.parse() {
            return Ok(gid);
        }
        let group = Group::from_name(text).map_err(|e| e.to_string())?;
        group.map(|group| group.gid.as_raw()).ok_or_else(|| format!("there is no group '{text}'"))
    }

    /// All groups that the user is in, and `gid`.
    ///
    /// # Errors
    /// When the system cannot tell them.
    pub(crate) fn groups(&self, gid: u32) -> std::io::Result<Vec<Gid>> {
        let gid = Gid::from_raw(gid);
        match self.name.as_deref().map(CString::new) {
            Some(Ok(name)) => Ok(getgrouplist(&name, gid)?),
            _ => Ok(vec![gid]),
        }
    }
}

/// Who is to own a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Owner {
    /// `USER`, `USER:GROUP` or `:GROUP`; with a user alone the group is the user's.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let group = group.filter(|group| !group.is_empty()).map(Account::group).transpose()?;
        if user.is_empty() {
            return match group {
                Some(_) => Ok(Self { uid: None, gid: group }),
                None => Err("write USER, USER:GROUP or :GROUP".to_owned()),
            };
        }
        let user = Account::user(user)?;
        Ok(Self { uid: Some(user.uid), gid: group.or(Some(user.gid)) })
    }
}
