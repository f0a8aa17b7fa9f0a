# query: change
# query: look
"""Settings that show in no attribute of a module are put back."""
import codecs
import decimal
import faulthandler
import gc
import logging
import mimetypes
import multiprocessing
import os
import sys
import threading

print("Content-Type: text/plain\n", flush=True)
print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks, faulthandler.is_enabled())
print(decimal.DefaultContext, decimal.ExtendedContext.prec, mimetypes.guess_type("a.of-the-script"), sys.getdlopenflags())
print(multiprocessing.get_start_method(allow_none=True), getattr(sys, "get_int_max_str_digits", str)())
print(logging.raiseExceptions, logging.getLevelName(25), logging.getLevelName(logging.INFO), logging.Formatter.default_msec_format, logging.getLogRecordFactory())
print(threading.Thread().name)
for look in (lambda: codecs.lookup("of-the-script"), lambda: "\u00e9".encode("ascii", "of-the-script")):
    try:
        print(look())
    except LookupError as e:
        print(e)
if os.environ["QUERY_STRING"] == "change":
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.callbacks.append(lambda *_: None)
    gc.freeze()
    faulthandler.enable()
    decimal.DefaultContext.prec = decimal.ExtendedContext.prec = 2
    decimal.DefaultContext.traps[decimal.Inexact] = True
    mimetypes.add_type("text/x-script", ".of-the-script")
    sys.setdlopenflags(os.RTLD_NOW)
    multiprocessing.set_start_method("fork")
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    logging.raiseExceptions = False
    logging.addLevelName(25, "OF THE SCRIPT")
    logging.addLevelName(logging.INFO, "SAID")
    logging.Formatter.default_msec_format = "%s.%d"
    logging.setLogRecordFactory(lambda *a, **k: None)
    codecs.register(lambda name: codecs.lookup("latin-1") if name == "of_the_script" else None)
    codecs.register_error("of-the-script", codecs.ignore_errors)
