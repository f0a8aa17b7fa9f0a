"""Settings that functions of the library keep where no attribute shows them, and how they are put back.

Only code that uses one of a setting's names can have changed it: of all others it is not asked.
"""
import _codecs
import codecs
import faulthandler
import gc
import resource
import signal
import sys

from fcgi._notes import like, tell

modules = sys.modules
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class Setting:
    """One of them: its module, names by which code changes it, what gives it, and what sets it to what that gave."""

    def __init__(self, module, names, get, put):
        self.module, self.names, self.get, self.put = module, frozenset(names.split()), get, put
        self.value = None

    def learn(self):
        self.value = self.get()

    def leave(self):
        if self.get() != self.value:
            self.put(self.value)


def get_gc():
    return gc.isenabled(), gc.get_threshold(), gc.get_debug(), tuple(gc.callbacks), gc.get_freeze_count() > 0


def put_gc(value):
    enabled, threshold, debug, callbacks, _ = value
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*threshold)
    gc.set_debug(debug)
    gc.callbacks[:] = callbacks
    gc.garbage.clear()
    if gc.get_freeze_count() and not value[4]:
        gc.unfreeze()


def put_faulthandler(is_enabled):
    # The descriptor is the process's own standard error again.
    faulthandler.enable(sys.__stderr__) if is_enabled else faulthandler.disable()


def leave_faulthandler(_):
    """Takes back what `faulthandler` may have been told, but does not tell."""
    faulthandler.cancel_dump_traceback_later()
    for number in signal.valid_signals():
        try:
            faulthandler.unregister(number)
        except RuntimeError:
            pass  # Those that `enable` is for.


CONTEXTS = ("DefaultContext", "BasicContext", "ExtendedContext")
OF_CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def get_decimal():
    contexts = [getattr(modules["decimal"], name) for name in CONTEXTS]
    return [([getattr(c, name) for name in OF_CONTEXT], dict(c.flags), dict(c.traps)) for c in contexts]


def put_decimal(value):
    for name, (attributes, flags, traps) in zip(CONTEXTS, value):
        context = getattr(modules["decimal"], name)
        for attribute, known in zip(OF_CONTEXT, attributes):
            setattr(context, attribute, known)
        for kept, known in ((context.flags, flags), (context.traps, traps)):
            for kind, is_set in known.items():
                kept[kind] = is_set


TYPES = ("suffix_map", "encodings_map", "types_map", "common_types")


def get_mimetypes():
    mimetypes = modules["mimetypes"]
    return mimetypes._db and [dict(m) for m in (*mimetypes._db.types_map, *mimetypes._db.types_map_inv)]


def put_mimetypes(_):
    mimetypes = modules["mimetypes"]
    mimetypes._default_mime_types()
    mimetypes.inited, mimetypes._db = False, None


def get_start_method():
    return modules["multiprocessing.context"]._default_context._actual_context


def put_start_method(value):
    modules["multiprocessing.context"]._default_context._actual_context = value


def get_limits():
    return {limit: resource.getrlimit(limit) for limit in LIMITS}


def put_limits(limits):
    for limit, value in limits.items():
        try:
            resource.setrlimit(limit, value)
        except (OSError, ValueError):
            pass  # Who has lowered the hard limit and is not root cannot go back.


def simple(module, get, put, *names):
    """A setting of a module that two of its functions get and set."""
    get, put = getattr(module, get, None), getattr(module, put, None)
    return [Setting(module.__name__, " ".join((put.__name__, *names)), get, put)] if get and put else []


class Settings:
    """All of them, as far as their modules have been loaded."""

    def __init__(self):
        self.all = [
            Setting("gc", "gc", get_gc, put_gc),
            Setting("faulthandler", "faulthandler", faulthandler.is_enabled, put_faulthandler),
            Setting("faulthandler", "dump_traceback_later register", object, leave_faulthandler),
            *simple(sys, "get_int_max_str_digits", "set_int_max_str_digits"),
            Setting("resource", "setrlimit prlimit", get_limits, put_limits),
            *simple(sys, "getdlopenflags", "setdlopenflags"),
            *simple(sys, "get_coroutine_origin_tracking_depth", "set_coroutine_origin_tracking_depth"),
            Setting("decimal", " ".join(CONTEXTS), get_decimal, put_decimal),
            Setting("mimetypes", "add_type " + " ".join(TYPES), get_mimetypes, put_mimetypes),
            Setting("multiprocessing.context", "multiprocessing concurrent set_start_method", get_start_method, put_start_method),
        ]
        self.known = []
        for name in {setting.module for setting in self.all} & modules.keys():
            self.learn(name)

    def learn(self, module):
        """A module has been loaded, and nobody has used it yet."""
        for setting in self.all:
            if setting.module == module and setting not in self.known:
                setting.learn()
                self.known.append(setting)

    def of(self, names, everything):
        """What puts back those that code can have changed that uses these names."""
        return [s.leave for s in self.known if everything or names & s.names]

    def now(self):
        """How they are."""
        return [setting.get() for setting in self.known if setting.get is not object]


class Codecs:
    """What is registered for encodings."""

    def __init__(self, isolation):
        self.isolation = isolation
        self.functions, self.handlers = [], {}
        self.register = codecs.register
        self.unregister = getattr(codecs, "unregister", None)
        self.searches = False
        self.register_error, self.lookup_error = codecs.register_error, codecs.lookup_error
        if self.unregister:
            tell(self.on_register, "register", codecs, _codecs)
        else:
            codecs.register = _codecs.register = like(self.do_register, self.register)
        tell(self.on_error, "register_error", codecs, _codecs)

    def is_library(self):
        """Whether an installed package is being loaded: what it registers stays."""
        loading = self.isolation.modules.current
        return loading is not None and not loading.is_sibling

    def on_register(self, function, *_):
        if not self.is_library():
            self.functions.append(function)
            self.isolation.undo.add(self.leave)

    def do_register(self, search_function, /):
        """Before Python 3.10 there is no way back: one function that stays asks those of the request."""
        if self.is_library() or not callable(search_function):
            return self.register(search_function)
        if not self.searches:
            self.register(self.search)
            self.searches = True
        self.functions.append(search_function)
        self.isolation.undo.add(self.leave)

    def search(self, name):
        return next(filter(None, (function(name) for function in self.functions)), None)

    def on_error(self, name, *_):
        if isinstance(name, str) and not self.is_library():
            try:
                self.handlers.setdefault(name, self.lookup_error(name))
            except LookupError:
                self.handlers.setdefault(name, unknown(name))
            self.isolation.undo.add(self.leave)

    def leave(self):
        while self.functions:
            function = self.functions.pop()
            if self.unregister:
                self.unregister(function)
        while self.handlers:
            self.register_error(*self.handlers.popitem())


def unknown(name):
    """An error handler that says that it is none."""

    def handler(_):
        raise LookupError("unknown error handler name %r" % name)

    return handler
