//! The FastCGI core wrapped for script languages.
//!
//! Each language is a module behind a feature of its name, and implements [`fcgi_core::Interpreter`]. The modules have the same
//! files with the same duties: `README.md` beside this crate has the table, and says how a language is added.

#[cfg(feature = "_lua")]
pub mod lua;
#[cfg(feature = "_python")]
pub mod python;
#[cfg(feature = "rhai")]
pub mod rhai;
