//! Dates. A time is a number of seconds since 1970 (UTC), as `unix_time()` gives it: so it can be compared, added to, kept as
//! JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use rhai::{Dynamic, Engine, FLOAT, INT, Map};

use super::error::{Failed, failed};

/// A format that is longer is none.
const FORMAT: usize = 4096;

/// A time that a script gives: seconds, whole ones or not.
fn timestamp(seconds: &Dynamic) -> Result<Timestamp, Failed> {
    let time = match (seconds.as_int(), seconds.as_float()) {
        (Ok(whole), _) => Timestamp::from_second(whole),
        (_, Ok(seconds)) => SignedDuration::try_from_secs_f64(seconds).and_then(Timestamp::from_duration),
        _ => return Err(format!("a time is a number of seconds, and no {}", seconds.type_name()).into()),
    };
    time.map_err(failed)
}

/// What scripts are given for a time.
fn seconds(time: Timestamp) -> FLOAT {
    time.as_duration().as_secs_f64()
}

/// A time zone by its name, such as `Europe/Berlin`; `local` is the server's own.
fn zone(name: &str) -> Result<TimeZone, Failed> {
    match name {
        "local" => TimeZone::try_system(),
        name => TimeZone::get(name),
    }
    .map_err(failed)
}

fn zoned(time: &Dynamic, zone: TimeZone) -> Result<ZonedDateTime, Failed> {
    Ok(timestamp(time)?.to_zoned_datetime(zone))
}

fn format(time: &ZonedDateTime, format: &str) -> Result<String, Failed> {
    if format.len() > FORMAT {
        return Err("the format of a time has 4096 bytes at most".into());
    }
    strtime::format(format, time).map_err(failed)
}

/// The time that a text tells in a format. One without a date or a zone tells none; without a time it is midnight.
fn parse_as(text: &str, format: &str) -> Result<FLOAT, Failed> {
    let parts = strtime::parse(format, text).map_err(failed)?;
    if parts.offset().is_some() || parts.timestamp().is_some() {
        return parts.to_timestamp().map(seconds).map_err(failed);
    }
    let date = parts.to_datetime().or_else(|_| parts.to_date().map(|date| date.at(0, 0, 0, 0)));
    let time = date.and_then(|date| date.to_zoned_datetime(TimeZone::UTC)).map_err(failed)?;
    Ok(seconds(time.timestamp()))
}

/// The time that a text tells by RFC 3339, or by RFC 9110 or RFC 2822 (as in headers of HTTP and of mail).
fn parse(text: &str) -> Result<FLOAT, Failed> {
    let time = text.parse::<Timestamp>().or_else(|e| {
        // What looks like neither is said to be no date of the more usual kind.
        rfc2822::DateTimeParser::new().parse_timestamp(text).map_err(|_| e)
    });
    time.map(seconds).map_err(failed)
}

fn parts(time: &ZonedDateTime) -> Map {
    let numbers = [
        ("year", INT::from(time.year())),
        ("month", INT::from(time.month())),
        ("day", INT::from(time.day())),
        ("hour", INT::from(time.hour())),
        ("minute", INT::from(time.minute())),
        ("second", INT::from(time.second())),
        ("weekday", INT::from(time.weekday().to_monday_one_offset())),
        ("day_of_year", INT::from(time.day_of_year())),
        ("offset", INT::from(time.offset().seconds())),
    ];
    numbers.into_iter().map(|(name, number)| (name.into(), number.into())).collect()
}

/// Adds the functions of this file.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("unix_time", || {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64()) as FLOAT
    });
    engine.register_fn("format_time", |time: Dynamic, text: &str| format(&zoned(&time, TimeZone::UTC)?, text));
    engine
        .register_fn("format_time", |time: Dynamic, text: &str, name: &str| format(&zoned(&time, zone(name)?)?, text));
    engine.register_fn("time_parts", |time: Dynamic| Ok::<_, Failed>(parts(&zoned(&time, TimeZone::UTC)?)));
    engine.register_fn("time_parts", |time: Dynamic, name: &str| Ok::<_, Failed>(parts(&zoned(&time, zone(name)?)?)));
    engine.register_fn("rfc3339", |time: Dynamic| timestamp(&time).map(|time| time.to_string()));
    engine.register_fn("http_date", |time: Dynamic| {
        rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp(&time)?).map_err(failed)
    });
    engine.register_fn("parse_time", parse);
    engine.register_fn("parse_time", parse_as);
}
