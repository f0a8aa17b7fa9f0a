"""Finds the package `fcgi` among the sources that the program carries inside."""
import sys
from _frozen_importlib import ModuleSpec


class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "fcgi._fcgi":
            return ModuleSpec(name, cls, origin="built-in")
        if name in SOURCES:
            spec = ModuleSpec(name, cls, origin="<%s>" % name, is_package=SOURCES[name][0])
            return spec
        return None

    @staticmethod
    def create_module(spec):
        return native() if spec.name == "fcgi._fcgi" else None

    @staticmethod
    def exec_module(module):
        name = module.__spec__.name
        if name in SOURCES:
            exec(compile(SOURCES[name][1], "<%s>" % name, "exec", dont_inherit=True), module.__dict__)

    @staticmethod
    def get_source(name):
        return SOURCES[name][1] if name in SOURCES else None


sys.meta_path.insert(PLACE, Finder)
