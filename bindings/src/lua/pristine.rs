//! Has a table been touched? Answered by comparing memory, some hundred times faster than entry by entry.
//!
//! A table's entries lie in two blocks, one for positive integers and one for all other keys. If the blocks are where they
//! were and hold the same bytes, no entry has been added, changed or removed. That is asked after each request for every
//! table that scripts share, of which most requests touch none.
//!
//! The layout of Lua's tables is private to Lua, so it is tried out when the interpreter starts: if a small table does not
//! look and change as expected, nothing is ever called pristine, and tables are compared entry by entry.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use super::ffi::{self, lua_State};

/// `struct Table` of Lua 5.3 and 5.4, behind the header that all collectable objects have.
#[repr(C)]
struct Table {
    next: *const u8,
    tag: u8,
    marked: u8,
    flags: u8,
    log_nodes: u8,
    array_len: u32,
    array: *const u8,
    nodes: *const u8,
    last_free: *const u8,
    metatable: *const u8,
}

/// Bytes of an entry in the block of positive integers, and in the other.
const ARRAY_ENTRY: usize = 16;
const NODE: usize = if cfg!(feature = "lua53") { 32 } else { 24 };
/// Where a key's value lies in an entry, and its length.
const KEY_AT: usize = 16;
const KEY: usize = 8;

/// How a table looked.
pub(super) struct Shape {
    table: *const Table,
    blocks: [(*const u8, usize); 2],
    metatable: *const u8,
    bytes: Vec<u8>,
}

impl Shape {
    /// Looks at the table on top of the stack.
    ///
    /// # Safety
    /// `layout_is_known` said yes for this state, and the table lives as long as the shape is used.
    pub(super) unsafe fn of(l: *mut lua_State) -> Self {
        // SAFETY: the caller's promise: a table is of the known layout.
        unsafe { Self::read(ffi::lua_topointer(l, -1).cast()) }
    }

    unsafe fn read(table: *const Table) -> Self {
        // SAFETY: as for `of`: the blocks have the lengths that the table says.
        unsafe {
            let blocks = blocks(&*table);
            let mut shape = Self { table, blocks, metatable: (*table).metatable, bytes: Vec::new() };
            for (block, len) in blocks {
                if len > 0 {
                    shape.bytes.extend_from_slice(std::slice::from_raw_parts(block, len));
                }
            }
            shape
        }
    }

    /// Whether the table still looks the same.
    ///
    /// # Safety
    /// As for [`of`](Self::of).
    pub(super) unsafe fn is_same(&self) -> bool {
        // SAFETY: as for `of`. The blocks are only read when they are where they were, with the same length.
        unsafe {
            let table = &*self.table;
            if table.metatable != self.metatable || blocks(table) != self.blocks {
                return false;
            }
            let mut at = 0;
            self.blocks.iter().all(|&(block, len)| {
                at += len;
                len == 0 || std::slice::from_raw_parts(block, len) == &self.bytes[at - len..at]
            })
        }
    }

    /// Whether this is the shape of the table at the top of the stack.
    pub(super) fn is_of(&self, l: *mut lua_State) -> bool {
        // SAFETY: a look at the stack.
        self.table == unsafe { ffi::lua_topointer(l, -1) }.cast()
    }

    /// Takes the look that the table has now.
    ///
    /// # Safety
    /// As for [`of`](Self::of).
    pub(super) unsafe fn renew(&mut self) {
        // SAFETY: as for `of`.
        *self = unsafe { Self::read(self.table) };
    }
}

/// How the entries looked that a table had at first; others may come, go and change.
pub(super) struct Entries {
    table: *const Table,
    blocks: [(*const u8, usize); 2],
    metatable: *const u8,
    keys: Vec<[u8; KEY]>,
    nodes: Vec<(*const [u8; NODE], [u8; NODE])>,
}

impl Entries {
    /// Looks at the table on top of the stack, whose keys are texts.
    ///
    /// # Safety
    /// As for [`Shape::of`]; the keys live as long as the entries are used.
    pub(super) unsafe fn of(l: *mut lua_State) -> Self {
        // SAFETY: the caller's promise: a table is of the known layout.
        unsafe {
            let table: *const Table = ffi::lua_topointer(l, -1).cast();
            let nodes = nodes(&*table).map(|node| (node, *node));
            let keys = nodes.map(|(_, node)| key(&node)).filter(|key| *key != [0; KEY]).collect();
            let mut entries = Self { table, blocks: blocks(&*table), metatable: ptr::null(), keys, nodes: Vec::new() };
            entries.renew();
            entries
        }
    }

    /// Whether they still look the same, and the table has the metatable that it had.
    ///
    /// # Safety
    /// As for [`of`](Self::of).
    pub(super) unsafe fn are_same(&self) -> bool {
        // SAFETY: as for `of`. The nodes are only read when the block is where it was, with the same length.
        unsafe {
            let table = &*self.table;
            table.metatable == self.metatable
                && blocks(table) == self.blocks
                && self.nodes.iter().all(|(node, bytes)| **node == *bytes)
        }
    }

    /// Takes the look that they have now.
    ///
    /// # Safety
    /// As for [`of`](Self::of).
    pub(super) unsafe fn renew(&mut self) {
        // SAFETY: as for `of`.
        unsafe {
            let table = &*self.table;
            self.blocks = blocks(table);
            self.metatable = table.metatable;
            let all = nodes(table).map(|node| (node, *node));
            self.nodes = all.filter(|(_, node)| self.keys.contains(&key(node))).collect();
        }
    }
}

/// The entries of a table but for those of its block of positive integers.
unsafe fn nodes(table: &Table) -> impl Iterator<Item = *const [u8; NODE]> + use<> {
    let first: *const [u8; NODE] = table.nodes.cast();
    // SAFETY: there are so many.
    (0..1usize << table.log_nodes).map(move |at| unsafe { first.add(at) })
}

/// What tells a key from others: of a text, its address.
fn key(node: &[u8; NODE]) -> [u8; KEY] {
    *node[KEY_AT..].first_chunk().expect("a key lies inside of its node")
}

fn blocks(table: &Table) -> [(*const u8, usize); 2] {
    // `array_len` may be less than the block's real length, which is the next power of two; no entry lies beyond it then.
    [(table.array, table.array_len as usize * ARRAY_ENTRY), (table.nodes, NODE << table.log_nodes)]
}

/// Tries the layout out on tables of its own.
///
/// # Safety
/// `l` is a Lua state with some stack to spare.
pub(super) unsafe fn layout_is_known(l: *mut lua_State) -> bool {
    // A change of the layout comes with a new version of Lua, and this program brings its Lua along.
    if !cfg!(any(feature = "lua53", feature = "lua54")) || size_of::<*const u8>() != 8 {
        return false;
    }
    // SAFETY: plain stack operations; a table of Lua 5.4 is at least as large as `Table`, so reading it is sound even if
    // the fields should mean something else, and the blocks are not followed before they have been found plausible.
    unsafe {
        let top = ffi::lua_gettop(l);
        ffi::lua_createtable(l, 2, 4);
        let known = is_as_expected(l);
        ffi::lua_settop(l, top);
        known
    }
}

/// Stack: an empty table with room for two integers and four other keys.
unsafe fn is_as_expected(l: *mut lua_State) -> bool {
    // SAFETY: as for `layout_is_known`.
    unsafe {
        let table = &*ffi::lua_topointer(l, -1).cast::<Table>();
        let plausible = table.tag & 0x0f == ffi::LUA_TTABLE as u8
            && (table.array_len, table.log_nodes) == (2, 2)
            && !table.array.is_null()
            && !table.nodes.is_null()
            && table.last_free.addr().wrapping_sub(table.nodes.addr()) == 4 * NODE
            && table.metatable.is_null();
        if !plausible {
            return false;
        }
        let mut shape = Shape::of(l);
        let set = |key: c_int, value: c_int| {
            ffi::lua_pushinteger(l, key.into());
            ffi::lua_pushinteger(l, value.into());
            ffi::lua_rawset(l, -3);
        };
        // Each change must be seen, and only changes: entries of both blocks, growth, a metatable.
        for (key, value) in [(1, 5), (1, 6), (2, 5), (-1, 5), (-1, 6), (0, 1), (77, 1), (78, 1), (79, 1), (80, 1)] {
            if !shape.is_same() {
                return false;
            }
            set(key, value);
            if shape.is_same() {
                return false;
            }
            shape.renew();
            set(key, value);
        }
        ffi::lua_newtable(l);
        let metatable = ffi::lua_topointer(l, -1);
        ffi::lua_setmetatable(l, -2);
        !shape.is_same() && Shape::of(l).metatable == metatable.cast()
    }
}
