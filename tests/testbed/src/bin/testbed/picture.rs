//! `testbed picture`: draws some steps of the demo's output as an SVG, for the README.

use std::fmt::Write;

use crate::Outcome;
use crate::args::Args;

/// The steps that are drawn, by the number that their titles begin with.
const STEPS: [&str; 2] = ["3.", "16."];
/// Characters of a line that are drawn.
const COLUMNS: usize = 104;
const CHARACTER_WIDTH: usize = 8;
const LINE_HEIGHT: usize = 18;
const MARGIN: usize = 16;

/// Where the text of a line begins, after its label.
const LABEL_END: usize = 8;

pub fn run(args: Args) -> Outcome {
    args.end()?;
    let demo = std::io::read_to_string(std::io::stdin())?;
    let lines = shown(&demo);
    if lines.is_empty() {
        return Err("standard input has no step of the demo: testbed demo | testbed picture".into());
    }
    print!("{}", drawn(&lines));
    Ok(())
}

/// The lines of the steps, with an empty one between them.
fn shown(demo: &str) -> Vec<&str> {
    let steps = demo.split("\n\n").filter(|step| {
        let number = step.trim_start().split(' ').next();
        number.is_some_and(|number| STEPS.contains(&number))
    });
    let mut lines = Vec::new();
    for step in steps {
        if !lines.is_empty() {
            lines.push("");
        }
        lines.extend(step.trim().lines());
    }
    lines
}

fn drawn(lines: &[&str]) -> String {
    let width = COLUMNS * CHARACTER_WIDTH + 2 * MARGIN;
    let height = lines.len() * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <title>What make demo shows</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#0d1117\"/>\n"
    );
    for (row, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        let y = MARGIN + (row + 1) * LINE_HEIGHT - 4;
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\" {}>{}</text>",
            style(line),
            escaped(&cut(line))
        );
    }
    svg + "</svg>\n"
}

fn style(line: &str) -> &'static str {
    let label = line.get(..LABEL_END).unwrap_or_default().trim();
    match label {
        "ok" => "fill=\"#3fb950\"",
        "warn" => "fill=\"#d29922\"",
        "error" | "fail" => "fill=\"#f85149\"",
        "sent" | "key" => "fill=\"#e6edf3\"",
        _ if line.starts_with(char::is_numeric) => "fill=\"#e6edf3\" font-weight=\"bold\"",
        _ => "fill=\"#8b949e\"",
    }
}

fn cut(line: &str) -> String {
    if line.chars().count() <= COLUMNS {
        return line.to_owned();
    }
    line.chars().take(COLUMNS - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = "/somewhere/bootstrap was ready after 9 ms.\n\n3. Its alias is off\n    \
                        sent <PUT>\n      ok it is there\n\n2. It is changed\n      ok\n\n16. All\n";

    #[test]
    fn the_steps_of_the_readme_are_drawn_and_no_other() {
        assert_eq!(
            shown(DEMO),
            ["3. Its alias is off", "    sent <PUT>", "      ok it is there", "", "16. All"]
        );
    }

    #[test]
    fn a_line_is_cut_escaped_and_coloured_by_its_label() {
        let long = "x".repeat(COLUMNS + 1);
        let svg = drawn(&["    sent <PUT>", "      ok it is there", "", &long]);
        assert!(svg.contains("&lt;PUT&gt;") && !svg.contains("<PUT>"), "{svg}");
        assert!(svg.contains("fill=\"#3fb950\">      ok it is there<"), "{svg}");
        assert!(svg.contains(&format!("{}…<", "x".repeat(COLUMNS - 1))), "{svg}");
        assert_eq!(svg.matches("<text").count(), 3);
    }
}
