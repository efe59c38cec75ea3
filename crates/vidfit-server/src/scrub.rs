//! Takes the server's folders out of what clients are told.

/// The text with every absolute path cut down to its last name.
///
/// Messages of the program name files as its user knows them. A client is not that user: he knows
/// what he has sent, and the rest is none of his business.
pub(crate) fn without_paths(text: &str) -> String {
    without_paths_but(text, &[])
}

/// The same, but for paths that are what the client has said himself.
pub(crate) fn without_paths_but(text: &str, own: &[&str]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = find_path(rest) {
        let (before, path) = rest.split_at(start);
        let length = path_length(path, before.chars().next_back());
        let name = path[..length].trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
        shown.push_str(before);
        match name.filter(|name| !name.is_empty()) {
            _ if own.contains(&&path[..length]) => shown.push_str(&path[..length]),
            Some(name) => shown.push_str(name),
            None => shown.push_str("a folder"),
        }
        rest = &path[length..];
    }
    shown + rest
}

/// Where the first absolute path begins: a slash or a drive that no word, URL or fraction precedes.
fn find_path(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|&at| {
        let after = |n: usize| bytes.get(at + n).copied().unwrap_or(b' ');
        let starts = match bytes[at] {
            b'/' => is_name(after(1)),
            b'\\' => after(1) == b'\\' && is_name(after(2)),
            letter if letter.is_ascii_alphabetic() => {
                after(1) == b':' && matches!(after(2), b'\\' | b'/') && after(3) != b'/'
            }
            _ => false,
        };
        let before = at.checked_sub(1).map_or(b' ', |at| bytes[at]);
        starts && !is_name(before) && !matches!(before, b'/' | b':' | b'.' | b'~')
            || starts && before == b':' && at >= 2 && bytes[at] == b'/'
    })
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'_' | b'.' | b'-')
}

/// How long a path is: up to the quote that it stands in, or to a space.
fn path_length(path: &str, before: Option<char>) -> usize {
    let end: &[char] = match before {
        Some('"') => &['"', '\n'],
        Some('\'') => &['\'', '\n'],
        Some('`') => &['`', '\n'],
        _ => &[' ', '\t', '\n', '"', '\'', '`', ',', ';', ')', ']', '>'],
    };
    let length = path.find(end).unwrap_or(path.len());
    // A colon or a full stop behind it is the sentence's.
    path[..length].trim_end_matches([':', '.', '!', '?']).len().max(1)
}

#[cfg(test)]
mod tests {
    use super::{without_paths, without_paths_but};

    #[test]
    fn paths_are_cut_down_to_their_names() {
        for (said, shown) in [
            ("/srv/q/jobs/video_1/input.png: is damaged", "input.png: is damaged"),
            ("reading \"/home/a b/c.mp4\" failed", "reading \"c.mp4\" failed"),
            ("in '/tmp/x y/', or (/var/y)", "in 'x y', or (y)"),
            ("open C:\\Users\\me\\q.sqlite.", "open q.sqlite."),
            ("file:/etc/passwd", "file:passwd"),
            ("path=/etc/passwd,x", "path=passwd,x"),
            ("\\\\host\\share\\f.png is", "f.png is"),
            ("/ü/ä.png", "ä.png"),
        ] {
            assert_eq!(without_paths(said), shown, "{said}");
        }
    }

    #[test]
    fn all_else_stays() {
        for text in [
            "3/4 of it, and/or 1 / 2",
            "see https://example.com/a/b",
            "zai-org/CogVideoX-2b is not here",
            "12:30, a: b, \"x\"",
            "",
            "/",
        ] {
            assert_eq!(without_paths(text), text);
        }
    }

    #[test]
    fn what_a_client_has_said_stays() {
        let text = "there is no \"/a/b\" in /srv/a/b, nor /a/b";
        assert_eq!(without_paths_but(text, &["/a/b"]), "there is no \"/a/b\" in b, nor /a/b");
    }
}
