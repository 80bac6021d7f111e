//! The one way to print a table: aligned columns, no borders, as wide as its content.

use comfy_table::{CellAlignment, ContentArrangement, presets};
use dfs_model::printable;

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Rows below a header.
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|(name, _)| *name));
        for (index, (_, align)) in columns.iter().enumerate() {
            let column = table.column_mut(index).expect("the header made this column");
            column.set_padding((0, 2));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Self(table)
    }

    /// Adds a row; what others wrote into it stays within its cell.
    pub fn row(&mut self, cells: Vec<String>) {
        self.0.add_row(cells.iter().map(|cell| printable(cell)));
    }

    /// The lines, without trailing blanks or a final newline.
    pub fn render(&self) -> String {
        self.0.trim_fmt()
    }
}

/// `key   value` lines with the values aligned.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{key:width$}  {}", printable(value));
    let lines: Vec<_> = facts.iter().map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_without_borders_or_trailing_blanks() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("STATE", Align::Left)]);
        table.row(vec!["a".into(), "1.0 KiB".into(), "ready".into()]);
        table.row(vec!["longer".into(), "12 B".into(), "-".into()]);
        assert_eq!(
            table.render(),
            "NAME       SIZE  STATE\na       1.0 KiB  ready\nlonger     12 B  -"
        );
    }

    #[test]
    fn facts_align_their_values() {
        assert_eq!(facts(&[("url", "x".into()), ("length", "y".into())]), "url     x\nlength  y");
        assert_eq!(facts(&[("name", "a\nseed  b".into())]), "name  a\\nseed  b");
    }
}
