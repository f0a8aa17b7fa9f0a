//! Dictionaries as CPython lays them out in memory. What is not documented is only used in versions that are known, and after it
//! has been found to be so; in all others there are slower ways.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyDict;

/// Calls `f` with each key and value of a dictionary, until it gives false; gives whether it never did.
pub(super) fn each(
    dict: &Bound<'_, PyDict>,
    mut f: impl FnMut(*mut ffi::PyObject, *mut ffi::PyObject) -> bool,
) -> bool {
    if let Some(entries) = entries(dict) {
        return entries.iter().all(|entry| entry.value.is_null() || f(entry.key, entry.value));
    }
    let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    // Without the GIL, it is this that keeps other threads away.
    with_critical_section(dict, || {
        // SAFETY: the interpreter is held and `f` only looks, so the dictionary stays as it is.
        unsafe {
            while ffi::PyDict_Next(dict.as_ptr(), &raw mut at, &raw mut key, &raw mut value) != 0 {
                if !f(key, value) {
                    return false;
                }
            }
        }
        true
    })
}

/// An entry of a dictionary whose keys are all strings. Those that were deleted have no value.
#[repr(C)]
struct Entry {
    key: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
}

/// A dictionary, as from 3.11 to 3.14.
#[repr(C)]
struct Layout {
    object: ffi::PyObject,
    used: ffi::Py_ssize_t,
    tag: u64,
    keys: *const Keys,
    /// Where the values are apart from the keys.
    values: *const u8,
}

/// The keys of a dictionary, behind which there are indices and the entries.
#[repr(C)]
struct Keys {
    references: ffi::Py_ssize_t,
    log2_size: u8,
    log2_index_bytes: u8,
    kind: u8,
    version: u32,
    usable: ffi::Py_ssize_t,
    entries: ffi::Py_ssize_t,
}

/// The kind of keys that are all strings.
const STRINGS: u8 = 1;

/// The entries of a dictionary whose keys are all strings, in their order, where it is known how they lie. They are good as
/// long as nothing else happens.
fn entries<'a>(dict: &'a Bound<'_, PyDict>) -> Option<&'a [Entry]> {
    static KNOWN: PyOnceLock<bool> = PyOnceLock::new();
    let known = KNOWN.get_or_init(dict.py(), || {
        let version = dict.py().version_info();
        // Without the GIL, objects are longer.
        let may_be = size_of::<ffi::PyObject>() == 16 && (3, 11) <= (version.major, version.minor) && version < (3, 15);
        may_be && lies_as_known(dict.py()).unwrap_or(false)
    });
    known.then(|| entries_of(dict)).flatten()
}

fn entries_of<'a>(dict: &'a Bound<'_, PyDict>) -> Option<&'a [Entry]> {
    // SAFETY: the interpreter is held and the dictionary live; that it lies so in the versions that there are has been looked at.
    unsafe {
        let dict = &*dict.as_ptr().cast::<Layout>();
        let keys = &*dict.keys;
        if keys.kind != STRINGS || !dict.values.is_null() {
            return None;
        }
        if keys.entries == 0 {
            // What has none has no room for them, either.
            return Some(&[]);
        }
        // Behind the indices, of which there are eight bytes or more.
        let first = dict.keys.add(1).byte_add(1_usize << keys.log2_index_bytes).cast::<Entry>();
        Some(std::slice::from_raw_parts(first, keys.entries as usize))
    }
}

/// Whether the entries of dictionaries lie where they are thought to.
fn lies_as_known(py: Python<'_>) -> PyResult<bool> {
    let dict = PyDict::new(py);
    for size in [0, 1, 5, 6, 11, 90, 200, 300] {
        for number in dict.len()..size {
            dict.set_item(format!("key {number}"), number)?;
        }
        if !is_alike(&dict) {
            return Ok(false);
        }
    }
    for number in (0..300).step_by(7) {
        dict.del_item(format!("key {number}"))?;
    }
    if !is_alike(&dict) || !is_alike(&dict.copy()?) || !is_alike(&py.import("sys")?.dict()) {
        return Ok(false);
    }
    let other = PyDict::new(py);
    other.set_item("key", 1)?;
    other.set_item(1, "value")?;
    Ok(entries_of(&other).is_none())
}

/// Whether a dictionary of strings has the entries that it is thought to have.
fn is_alike(dict: &Bound<'_, PyDict>) -> bool {
    let Some(entries) = entries_of(dict) else { return false };
    let entries = entries.iter().filter(|entry| !entry.value.is_null()).map(|entry| (entry.key, entry.value));
    entries.eq(dict.iter().map(|(key, value)| (key.as_ptr(), value.as_ptr())))
}

/// A dictionary's tag (PEP 509): a number that no dictionary has had before, from each change to the next. `None` where CPython
/// has none: it came with 3.6 and went with 3.14.
pub(super) fn tag(dict: &Bound<'_, PyDict>) -> Option<u64> {
    static THERE: PyOnceLock<bool> = PyOnceLock::new();
    let there = THERE.get_or_init(dict.py(), || {
        let version = dict.py().version_info();
        let may_be = cfg!(target_pointer_width = "64") && (3, 9) <= (version.major, version.minor) && version < (3, 14);
        may_be && tag_changes(&PyDict::new(dict.py())).unwrap_or(false)
    });
    there.then(|| word_of_tag(dict))
}

/// The fourth word of a dictionary, which in the versions that have tags is its tag.
fn word_of_tag(dict: &Bound<'_, PyDict>) -> u64 {
    // SAFETY: a dictionary is longer than four words, and the interpreter is held.
    unsafe { dict.as_ptr().cast::<u64>().add(3).read() }
}

/// Whether what is taken for a tag is one.
fn tag_changes(dict: &Bound<'_, PyDict>) -> PyResult<bool> {
    let mut tags = vec![word_of_tag(dict)];
    dict.set_item("a", 1)?;
    tags.push(word_of_tag(dict));
    dict.set_item("a", 2)?;
    tags.push(word_of_tag(dict));
    let stays = dict.contains("a")? && dict.copy()?.len() == 1 && word_of_tag(dict) == tags[2];
    dict.set_item("b", 2)?;
    tags.push(word_of_tag(dict));
    dict.del_item("a")?;
    tags.push(word_of_tag(dict));
    dict.clear();
    tags.push(word_of_tag(dict));
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    Ok(stays && tags.len() == count)
}
