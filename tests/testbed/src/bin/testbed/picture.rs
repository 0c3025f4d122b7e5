//! `testbed picture`: draws the first steps of the demo's output as an SVG, for the README.

use std::fmt::Write;

use crate::Outcome;
use crate::args::Args;

/// How many steps are drawn.
const STEPS: usize = 3;
const COLUMNS: usize = 108;
const CHARACTER_WIDTH: usize = 8;
const LINE_HEIGHT: usize = 18;
const MARGIN: usize = 16;

pub fn run(args: Args) -> Outcome {
    args.end()?;
    let demo = std::io::read_to_string(std::io::stdin())?;
    let Some(begin) = demo.find("\n1  ") else {
        return Err("standard input has no step of the demo: testbed demo | testbed picture".into());
    };
    let steps = &demo[begin + 1..];
    let end = steps.find(&format!("\n{}  ", STEPS + 1)).unwrap_or(steps.len());
    print!("{}", drawn(steps[..end].trim_end()));
    Ok(())
}

fn drawn(text: &str) -> String {
    let width = COLUMNS * CHARACTER_WIDTH + 2 * MARGIN;
    let height = text.lines().count() * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <title>What make demo shows</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#0d1117\"/>\n"
    );
    for (row, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let y = MARGIN + (row + 1) * LINE_HEIGHT - 4;
        let style = match line.trim_start() {
            _ if line.starts_with(char::is_numeric) => "fill=\"#e6edf3\" font-weight=\"bold\"",
            label if label.starts_with("in KV") => "fill=\"#3fb950\"",
            label if label.starts_with("changed") => "fill=\"#d29922\"",
            _ => "fill=\"#8b949e\"",
        };
        let line = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let place = format!("x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\"");
        let _ = writeln!(svg, "<text {place} {style}>{line}</text>");
    }
    svg + "</svg>\n"
}
