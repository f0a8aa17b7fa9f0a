//! What values of options are written like.

use std::time::Duration;

use fcgi_core::supervisor::Size;

/// A time in seconds, more than none.
pub(super) fn positive_seconds(text: &str) -> Result<Duration, String> {
    let count: f64 = text.parse().map_err(|_| "write a number of seconds such as 30 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(count) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("write a number of seconds that is more than 0".to_owned()),
    }
}

/// A timeout; 0 is none.
pub(super) fn seconds(count: u64) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(count))
}

/// A number of bytes, with K, M or G behind it for multiples of 1024.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.trim_end_matches(['B', 'b']).char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| "write a number of bytes such as 4096, 64K or 2M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// Permissions of files in octal.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 && !digits.starts_with('+') => Ok(mode),
        _ => Err("write an octal number from 000 to 777".to_owned()),
    }
}

/// `NAME` or `NAME=VALUE`.
pub(super) fn environment(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
    if name.is_empty() || text.contains('\0') {
        return Err("write NAME or NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value))
}

/// A number of workers: `N`, or `MIN..MAX`.
pub(super) fn workers(text: &str) -> Result<Size, String> {
    const MOST: u16 = 1024;
    let number = |text: &str| text.parse::<u16>().ok().filter(|count| *count <= MOST);
    let size = match text.split_once("..") {
        None => number(text).map(Size::fixed),
        Some((min, max)) => number(min).zip(number(max)).map(|(min, max)| Size { min, max }),
    };
    let size = size.ok_or_else(|| format!("write a number such as 4, or two such as 2..8, up to {MOST}"))?;
    if size.max == 0 || size.min > size.max {
        return Err("the larger number comes last, and is at least 1".to_owned());
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65536), ("64kb", 65536), ("2M", 2 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "K", "-1", "1.5M", "many", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
