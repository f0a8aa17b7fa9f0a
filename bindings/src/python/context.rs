//! What a request gets when its program fails.

/// The page of a request that failed before it said anything.
pub(super) fn error_page(status: &str, details: &[u8]) -> Vec<u8> {
    let page = format!("Status: {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{status}\n");
    [page.as_bytes(), if details.is_empty() { b"" } else { b"\n" }, details].concat()
}
