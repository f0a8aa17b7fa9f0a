//! A hook that the script has set, while one of ours is in its place.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering::SeqCst};

use super::ffi::{self, lua_Hook, lua_State};

/// Written by the handler of a signal, in the thread that reads it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Whose it is.
    of: AtomicPtr<lua_State>,
    hook: AtomicPtr<()>,
    mask: AtomicI32,
    count: AtomicI32,
}

impl Kept {
    /// Keeps the hook of a coroutine; not if it is the one that is to come.
    ///
    /// # Safety
    /// The coroutine lives.
    pub(super) unsafe fn keep(&self, l: *mut lua_State, ours: lua_Hook) -> bool {
        // SAFETY: these only read.
        let (hook, mask, count) = unsafe { (ffi::lua_gethook(l), ffi::lua_gethookmask(l), ffi::lua_gethookcount(l)) };
        let hook = hook.map_or(ptr::null_mut(), |hook| hook as *mut ());
        if hook == ours as *mut () {
            return false;
        }
        self.hook.store(hook, SeqCst);
        self.mask.store(mask, SeqCst);
        self.count.store(count, SeqCst);
        self.of.store(l, SeqCst);
        true
    }

    /// Gives a coroutine the hook back that it had.
    ///
    /// # Safety
    /// The coroutine lives.
    pub(super) unsafe fn put_back(&self, l: *mut lua_State) {
        let hook = if self.of.swap(ptr::null_mut(), SeqCst) == l { self.hook.load(SeqCst) } else { ptr::null_mut() };
        // SAFETY: what is not null was a hook, and is one.
        unsafe {
            if hook.is_null() {
                ffi::lua_sethook(l, None, 0, 0);
            } else {
                let hook = std::mem::transmute::<*mut (), lua_Hook>(hook);
                ffi::lua_sethook(l, Some(hook), self.mask.load(SeqCst), self.count.load(SeqCst));
            }
        }
    }
}
