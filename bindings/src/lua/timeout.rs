//! Ends a script that runs too long, from inside: the watchdog sends a signal to the interpreter's thread, whose handler
//! sets a hook, as `lua` itself does for an interrupt at the keyboard; the hook ends the script where it stands.
//!
//! A hook belongs to one coroutine, so the one that runs is known at any time.
//!
//! What runs for long (`--slow-log`) meets a hook in the same way, which writes where it stands, puts back the hook that the
//! script had, and lets it go on.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::ffi::{self, lua_State};
use fcgi_core::slow_log::SlowLog;
use fcgi_core::watchdog::{Notice, Watchdog, Watched};

use super::context::{self, Exit};
use super::ends;
use super::hook::Kept;

/// What the handler knows of an interpreter. It lives as long as the process.
#[derive(Debug, Default)]
struct Target {
    /// The coroutine that runs; null between requests.
    running: AtomicPtr<lua_State>,
    /// The request's time is over.
    is_over: AtomicBool,
    /// What is said then.
    message: OnceLock<CString>,
    /// The request is slow, and nobody has told where it is.
    is_slow: AtomicBool,
    /// When it began.
    since: Mutex<Option<Instant>>,
    log: OnceLock<Arc<SlowLog>>,
    /// The script's own hook.
    kept: Kept,
}

thread_local! {
    static TARGET: &'static Target = Box::leak(Box::default());
}

/// One of the signals that are free for programs. The first few are the C library's and debuggers'.
fn signal() -> c_int {
    libc::SIGRTMIN() + 6
}

/// Puts the calling thread's interpreter under watch.
pub(super) fn watch(watchdog: &Watchdog, log: Option<&Arc<SlowLog>>) -> Watched {
    // SAFETY: the handler does only what handlers may do; an interrupted system call goes on, except for those that wait.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(signal(), &raw const action, ptr::null_mut());
    }
    let target: &'static Target = TARGET.with(|t| *t);
    if let Some(log) = log {
        target.log.get_or_init(|| log.clone());
    }
    let text =
        format!("the request takes longer than {:?} (--request-timeout)", watchdog.timeout().unwrap_or_default());
    target.message.get_or_init(|| CString::new(text).unwrap_or_default());
    // SAFETY: this cannot fail.
    let thread = Thread(unsafe { libc::pthread_self() });
    watchdog.watch(move |notice| thread.send(target, notice))
}

/// An interpreter's thread, which ends its watch before it ends itself.
struct Thread(libc::pthread_t);

impl Thread {
    fn send(&self, target: &'static Target, notice: Notice) {
        match notice {
            Notice::Late => target.is_over.store(true, SeqCst),
            Notice::Slow(taken) => {
                *target.since() = Instant::now().checked_sub(taken);
                target.is_slow.store(true, SeqCst);
            }
        }
        let value = libc::sigval { sival_ptr: ptr::from_ref(target).cast_mut().cast() };
        // SAFETY: the thread lives; the handler gets what it expects.
        unsafe { libc::pthread_sigqueue(self.0, signal(), value) };
    }
}

extern "C" fn on_signal(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the signal is ours and comes with a target; setting a hook is allowed in a handler, as Lua says.
    unsafe {
        if info.is_null() || (*info).si_code != libc::SI_QUEUE {
            return;
        }
        let target = (*info).si_value().sival_ptr.cast::<Target>();
        let running = if target.is_null() { ptr::null_mut() } else { (*target).running.load(SeqCst) };
        if !running.is_null() {
            let is_over = (*target).is_over.load(SeqCst);
            if !is_over && !(*target).kept.keep(running, tell) {
                // It is there already.
                return;
            }
            let hook = if is_over { end } else { tell };
            let always = ffi::LUA_MASKCALL | ffi::LUA_MASKRET | ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
            ffi::lua_sethook(running, Some(hook), always, 1);
        }
    }
}

/// Says which coroutine runs from now on; gives the one that ran.
pub(super) fn runs(l: *mut lua_State) -> *mut lua_State {
    TARGET.with(|target| target.running.swap(l, SeqCst))
}

/// No request runs any more, or another one begins.
pub(super) fn reset(l: *mut lua_State) {
    TARGET.with(|target| {
        target.running.store(l, SeqCst);
        target.is_over.store(false, SeqCst);
        target.is_slow.store(false, SeqCst);
    });
}

impl Target {
    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes where the request is, if that is to be told.
    ///
    /// # Safety
    /// As for a hook.
    unsafe fn tell(&self, l: *mut lua_State) {
        let Some(log) = self.log.get().filter(|_| self.is_slow.swap(false, SeqCst)) else { return };
        let taken = self.since().map_or(Duration::ZERO, |since| since.elapsed());
        // SAFETY: the text stays on the stack while it is written.
        unsafe {
            ffi::luaL_traceback(l, l, ptr::null(), 0);
            let stack = CStr::from_ptr(ffi::lua_tostring(l, -1)).to_bytes();
            let stack = stack.strip_prefix(b"stack traceback:\n").unwrap_or(stack);
            context::with(|c| c.request(|request| log.write(request.params(), taken, stack)));
            ffi::lua_pop(l, 1);
        }
    }
}

/// Tells where the script is, which goes on.
unsafe extern "C-unwind" fn tell(l: *mut lua_State, _: *mut ffi::lua_Debug) {
    TARGET.with(|target| {
        // SAFETY: hooks may change hooks, and push something.
        unsafe {
            target.kept.put_back(l);
            target.tell(l);
        }
    });
}

/// Whether the request's time is over.
pub(super) fn is_over() -> bool {
    TARGET.with(|target| target.is_over.load(SeqCst))
}

/// Ends the script, with a message that says where it was.
unsafe extern "C-unwind" fn end(l: *mut lua_State, _: *mut ffi::lua_Debug) {
    // SAFETY: hooks may raise errors; nothing needs dropping when one is raised.
    unsafe {
        if !is_over() || context::with(|c| c.exit.get().is_some()) {
            // Too late: the script ends already, or has ended.
            if context::with(|c| c.exit.get().is_none()) {
                ffi::lua_sethook(l, None, 0, 0);
            }
            ends::unless_ended(l, 0);
            return;
        }
        TARGET.with(|target| target.tell(l));
        ffi::luaL_where(l, 0);
        ffi::lua_pushstring(l, TARGET.with(|target| target.message.get().map_or(ptr::null(), |m| m.as_ptr())));
        ffi::lua_concat(l, 2);
        ffi::luaL_traceback(l, l, ffi::lua_tostring(l, -1), 0);
        let message = CStr::from_ptr(ffi::lua_tostring(l, -1)).to_bytes();
        context::with(|c| {
            c.timed_out.replace(Some(message.to_vec()));
            c.exit.set(Some(Exit { status: 1, close: false }));
        });
        ffi::lua_pop(l, 2);
        ends::unless_ended(l, 0);
    }
}
