//! Tells where a script is that runs for long (`--slow-log`). Rhai knows that only while a debugger is registered, to which it
//! shows each step: that is done only with a slow log, and costs time there.

use fcgi_core::interpreter::Setup;
use rhai::debugger::{Debugger, DebuggerCommand, DebuggerEvent};
use rhai::{Engine, NativeCallContext, Position};

use super::{context, error};

/// Has the engine look, with each step, whether an entry is wanted, if there is a slow log.
pub(super) fn add_to(engine: &mut Engine, setup: &Setup) {
    if setup.slow_log.is_none() {
        return;
    }
    let wanted = context::with(|context| context.timeout.borrow().is_slow());
    #[expect(deprecated, reason = "not deprecated but subject to change")]
    engine.register_debugger(
        |_, debugger| debugger,
        move |mut context, event, _, source, position| {
            if matches!(event, DebuggerEvent::Start) {
                let script = source.unwrap_or_default().to_owned();
                context.global_runtime_state_mut().debugger_mut().set_state(script);
            }
            if wanted() {
                report(source, position, context.global_runtime_state().debugger());
            }
            Ok(DebuggerCommand::StepInto)
        },
    );
}

/// As a step does, from a function of ours that takes its time.
pub(super) fn tell(native: &NativeCallContext<'_>) {
    if context::with(|context| context.timeout.borrow().is_slow()()) {
        report(native.call_source(), native.call_position(), native.global_runtime_state().debugger());
    }
}

#[cold]
fn report(source: Option<&str>, position: Position, debugger: &Debugger) {
    let mut stack = format!("  {}\n", error::place(source.unwrap_or_default(), position));
    let calls = debugger.call_stack();
    for (index, call) in calls.iter().enumerate().rev() {
        // A call's source is where the function is; it was called in that of the call around it, the first one in the script.
        let around = index.checked_sub(1).map(|around| calls[around].source.as_deref().unwrap_or_default().to_owned());
        let around = around.unwrap_or_else(|| debugger.state().to_string());
        let place = error::place(&around, call.pos);
        stack.extend(["  in function '", &*call.fn_name, "', called at ", &*place, "\n"]);
    }
    context::with(|context| {
        context.with_params(|params| context.timeout.borrow().report(params, stack.as_bytes()));
    });
}
