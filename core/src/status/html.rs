//! The status as a page for a browser.

use std::fmt::Write;

use super::Report;
use super::text::{figures, of_line};

pub(super) fn page(reports: &[Report<'_>]) -> String {
    let mut page = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Status</title>\n\
         <style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin-bottom:2em}\
         td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}</style></head><body>\n"
        .to_owned();
    for report in reports {
        // Writing to a string does not fail.
        let _ = writeln!(page, "<h1>{}</h1>\n<table>", escaped(report.name));
        for (name, value) in figures(report) {
            let _ = writeln!(page, "<tr><th>{name}</th><td>{}</td></tr>", escaped(&value));
        }
        page.push_str("</table>\n");
        let lines: Vec<_> = report.lines().iter().map(|line| of_line(report, line)).collect();
        if let Some(first) = lines.first() {
            let cells = |cells: &mut dyn Iterator<Item = String>| cells.collect::<String>();
            let head = cells(&mut first.iter().map(|(name, _)| format!("<th>{name}</th>")));
            let _ = writeln!(page, "<table>\n<tr>{head}</tr>");
            for line in &lines {
                let row = cells(&mut line.iter().map(|(_, value)| format!("<td>{}</td>", escaped(value))));
                let _ = writeln!(page, "<tr>{row}</tr>");
            }
            page.push_str("</table>\n");
        }
    }
    page.push_str("</body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
