//! A script's error stream in the program's own log, line by line.

/// A longer line becomes several: a script may never end one.
const LONGEST_LINE: usize = 8 << 10;

/// Text on its way to the log. What is left without an end of line is logged when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct ErrorLines(Vec<u8>);

impl ErrorLines {
    pub(crate) fn push(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let end = text.iter().position(|&b| b == b'\n');
            let room = LONGEST_LINE - self.0.len();
            let length = end.unwrap_or(text.len()).min(room);
            self.0.extend_from_slice(&text[..length]);
            text = &text[length..];
            if end == Some(length) {
                text = &text[1..];
                self.write();
            } else if length == room {
                self.write();
            }
        }
    }

    fn write(&mut self) {
        let line = self.0.trim_ascii_end();
        if !line.is_empty() {
            tracing::error!("script: {}", String::from_utf8_lossy(line));
        }
        self.0.clear();
    }
}

impl Drop for ErrorLines {
    fn drop(&mut self) {
        self.write();
    }
}
