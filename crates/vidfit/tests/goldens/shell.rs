//! Command lines as a shell reads them: words, quotes, and variables in front.

/// A command line in its parts.
#[derive(Debug, PartialEq)]
pub struct Line {
    /// Variables that are set for it alone.
    pub variables: Vec<(String, String)>,
    /// Its words.
    pub words: Vec<String>,
}

impl Line {
    /// Reads a line: words that are `NAME=value` before all others are variables.
    pub fn read(text: &str) -> Line {
        let words = words(text);
        let is_variable = |word: &String| {
            let is_of_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            word.split_once('=').is_some_and(|(name, _)| name.chars().all(is_of_name))
        };
        let count = words.iter().take_while(|word| is_variable(word)).count();
        let pair = |word: &String| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        Line {
            variables: words[..count].iter().map(pair).collect(),
            words: words[count..].to_vec(),
        }
    }
}

/// Splits a line at its spaces; what is in quotes stays together, and stands as it is written.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed in {text}");
    words.extend(word);
    words
}

/// The lines of a file of cases, without comments and empty ones.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn lines_are_read_as_a_shell_reads_them() {
    let line = Line::read("VIDFIT_STEPS=3 plan 'a \"b\"' --gpu=\"RTX 3060\" \"\" A=b");
    assert_eq!(line.variables, [("VIDFIT_STEPS".to_owned(), "3".to_owned())]);
    assert_eq!(line.words, ["plan", "a \"b\"", "--gpu=RTX 3060", "", "A=b"]);
}
