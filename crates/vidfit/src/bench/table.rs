//! Tables of results, for a terminal or for a document.

use crate::say::line;

/// A table with a title and a few sentences.
pub struct Table {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// The names of the columns.
    pub columns: Vec<&'static str>,
    /// How many columns are words; the others are numbers, flush right.
    pub words: usize,
    /// The cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Prints it, as Markdown or in columns.
    pub fn print(&self, markdown: bool) {
        let title = if markdown { format!("### {}", self.title) } else { self.title.clone() };
        line!("{title}\n\n{}\n", self.note);
        let widths = self.widths();
        let header: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        self.print_row(&header, &widths, markdown);
        if markdown {
            let rule = |n: usize| if n < self.words { "---" } else { "---:" };
            let rules: Vec<&str> = (0..self.columns.len()).map(rule).collect();
            line!("|{}|", rules.join("|"));
        }
        for row in &self.rows {
            self.print_row(row, &widths, markdown);
        }
        line!("");
    }

    fn print_row(&self, cells: &[String], widths: &[usize], markdown: bool) {
        if markdown {
            line!("| {} |", cells.join(" | "));
            return;
        }
        let padded = cells.iter().zip(widths).enumerate().map(|(n, (cell, width))| {
            if n < self.words { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        line!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }

    fn widths(&self) -> Vec<usize> {
        let of_column = |n: usize| {
            let cells = self.rows.iter().map(|row| row[n].chars().count());
            cells.chain([self.columns[n].chars().count()]).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(of_column).collect()
    }
}
