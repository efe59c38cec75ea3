//! Tables of results, for a terminal or for a document.

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
    /// The table as Markdown, or in columns.
    pub fn text(&self, markdown: bool) -> String {
        let title = if markdown { format!("### {}", self.title) } else { self.title.clone() };
        let mut lines = vec![title, String::new(), self.note.clone(), String::new()];
        let widths = self.widths();
        let header: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        lines.push(self.row(&header, &widths, markdown));
        if markdown {
            let rule = |n: usize| if n < self.words { "---" } else { "---:" };
            let rules: Vec<&str> = (0..self.columns.len()).map(rule).collect();
            lines.push(format!("|{}|", rules.join("|")));
        }
        lines.extend(self.rows.iter().map(|row| self.row(row, &widths, markdown)));
        lines.push(String::new());
        lines.join("\n")
    }

    fn row(&self, cells: &[String], widths: &[usize], markdown: bool) -> String {
        if markdown {
            return format!("| {} |", cells.join(" | "));
        }
        let padded = cells.iter().zip(widths).enumerate().map(|(n, (cell, width))| {
            if n < self.words { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }

    fn widths(&self) -> Vec<usize> {
        let of_column = |n: usize| {
            let cells = self.rows.iter().map(|row| row[n].chars().count());
            cells.chain([self.columns[n].chars().count()]).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(of_column).collect()
    }
}
