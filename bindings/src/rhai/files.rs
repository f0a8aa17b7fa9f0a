//! Files, where `--fs-root` grants them: in that directory and below it. The names are those of the package rhai-fs; that one can
//! reach any file, this goes through `cap-std`, which opens paths from the directory on and follows no way out of it, be it
//! `..`, an absolute path or a link, and be it made while it looks.

use std::cell::RefCell;
use std::io::{Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File as CapFile, OpenOptions, OpenOptionsExt};
use rhai::{Array, Blob, Dynamic, Engine, FuncRegistration, INT, Module};
use rustix::fs::OFlags;

use super::error::{Failed, failed};
use super::memory;

/// What changes a directory.
type Change = fn(&Dir, &str) -> std::io::Result<()>;

/// An open file, as scripts hold it. It is closed when nobody holds it any more.
#[derive(Clone)]
struct File(Rc<RefCell<CapFile>>);

/// Says which file it was that something failed with.
fn at(path: &str) -> impl Fn(std::io::Error) -> Failed {
    move |e| failed(format!("{path}: {e}"))
}

/// Opens a file for what the mode says: `r` to read; `w` to write from its beginning, it is emptied or made; `a` to write at
/// its end; with `+` to do both; with `x` it must be new.
fn open(root: &Dir, path: &str, mode: &str) -> Result<File, Failed> {
    let mut options = OpenOptions::new();
    let both = mode.contains('+');
    match mode.trim_end_matches(['+', 'x', 'b']) {
        "r" => options.read(true).write(both),
        "w" => options.write(true).create(true).truncate(true).read(both),
        "a" => options.append(true).create(true).read(both),
        _ => return Err(format!("{path}: no such mode: '{mode}'; there are r, w, a, r+, w+, a+, wx").into()),
    };
    if mode.contains('x') {
        options.create_new(true);
    }
    // To open a pipe may wait for ever, and what comes of it or of a device need not end.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = root.open_with(path, &options).map_err(at(path))?;
    match file.metadata() {
        Ok(what) if what.is_file() => Ok(File(Rc::new(RefCell::new(file)))),
        Ok(_) => Err(format!("{path}: this is no ordinary file").into()),
        Err(e) => Err(at(path)(e)),
    }
}

/// Reads `count` bytes at most, or all that are left; no more than there is memory for.
fn read(file: &File, count: Option<INT>) -> Result<Vec<u8>, Failed> {
    // The vector may become twice as large.
    let most = memory::room() as u64 / 2;
    let count = count.map_or(u64::MAX, |count| count.max(0) as u64);
    let mut bytes = Vec::new();
    let mut file = file.0.borrow_mut();
    (&mut *file).take(count.min(most)).read_to_end(&mut bytes).map_err(at("read"))?;
    if count > most && (&mut *file).take(1).read(&mut [0]).is_ok_and(|more| more > 0) {
        return Err("the rest of the file is too long for a value (--memory-limit): read it in parts".into());
    }
    Ok(bytes)
}

fn read_string(file: &File, count: Option<INT>) -> Result<String, Failed> {
    String::from_utf8(read(file, count)?).map_err(|_| "this is no UTF-8: use read_blob".into())
}

fn names(root: &Dir, path: &str) -> Result<Array, Failed> {
    let mut names = Vec::new();
    for entry in root.read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names.into_iter().map(Dynamic::from).collect())
}

/// Lets scripts use the files of a directory.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn add_to(engine: &mut Engine, root: &std::path::Path) -> std::io::Result<()> {
    let root = Rc::new(Dir::open_ambient_dir(root, ambient_authority())?);
    engine.register_type_with_name::<File>("File");
    let mut module = Module::new();
    let volatile = |name: &str| FuncRegistration::new(name).with_volatility(true).in_global_namespace();
    let dir = root.clone();
    volatile("open_file").set_into_module(&mut module, move |path: &str| open(&dir, path, "r"));
    let dir = root.clone();
    volatile("open_file").set_into_module(&mut module, move |path: &str, mode: &str| open(&dir, path, mode));
    let dir = root.clone();
    volatile("open_dir").set_into_module(&mut module, move |path: &str| names(&dir, path));
    let dir = root.clone();
    volatile("exists").set_into_module(&mut module, move |path: &str| dir.exists(path));
    let dir = root.clone();
    volatile("is_dir").set_into_module(&mut module, move |path: &str| dir.is_dir(path));
    let changes: [(&str, Change); 3] = [
        ("create_dir", |dir, path| dir.create_dir_all(path)),
        ("remove_dir", |dir, path| dir.remove_dir(path)),
        ("remove_file", |dir, path| dir.remove_file(path)),
    ];
    for (name, change) in changes {
        let dir = root.clone();
        volatile(name).set_into_module(&mut module, move |path: &str| change(&dir, path).map_err(at(path)));
    }
    volatile("rename")
        .set_into_module(&mut module, move |from: &str, to: &str| root.rename(from, &root, to).map_err(at(from)));
    add_methods(&mut module);
    engine.register_global_module(module.into());
    Ok(())
}

/// What is done with an open file.
fn add_methods(module: &mut Module) {
    let volatile = |name: &str| FuncRegistration::new(name).with_volatility(true).in_global_namespace();
    volatile("read_string").set_into_module(module, |file: &mut File| read_string(file, None));
    volatile("read_string").set_into_module(module, |file: &mut File, count: INT| read_string(file, Some(count)));
    volatile("read_blob").set_into_module(module, |file: &mut File| read(file, None));
    volatile("read_blob").set_into_module(module, |file: &mut File, count: INT| read(file, Some(count)));
    let write = |file: &mut File, bytes: &[u8]| -> Result<INT, Failed> {
        file.0.borrow_mut().write_all(bytes).map_err(at("write"))?;
        Ok(bytes.len() as INT)
    };
    volatile("write").set_into_module(module, move |file: &mut File, text: &str| write(file, text.as_bytes()));
    volatile("write").set_into_module(module, move |file: &mut File, bytes: Blob| write(file, &bytes));
    volatile("seek").set_into_module(module, |file: &mut File, position: INT| {
        let to = SeekFrom::Start(position.max(0) as u64);
        file.0.borrow_mut().seek(to).map(|at| at as INT).map_err(at("seek"))
    });
    volatile("position").set_into_module(module, |file: &mut File| {
        file.0.borrow_mut().stream_position().map(|at| at as INT).map_err(at("position"))
    });
    volatile("bytes").set_into_module(module, |file: &mut File| {
        file.0.borrow().metadata().map(|what| what.len() as INT).map_err(at("bytes"))
    });
}
