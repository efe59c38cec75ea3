//! `multipart/form-data` (RFC 7578), read as it comes in.
//!
//! Nothing is kept but the piece at hand: a part is given away in chunks, and what surrounds the
//! parts has a limit of its own.

use super::body::Incoming;
use super::error::ApiError;

/// Most bytes of a part's headers.
const MAX_HEADERS_BYTES: usize = 8 << 10;
/// Most bytes before the first part, which nobody uses.
const MAX_PREAMBLE_BYTES: usize = 1 << 10;

/// A form that is being read.
pub(crate) struct Multipart {
    body: Incoming,
    buffer: Vec<u8>,
    /// What ends a part: a line break, two dashes and the boundary.
    delimiter: Vec<u8>,
    ended: bool,
}

/// A part, by its headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The field's name.
    pub(crate) name: String,
    /// Whether it is a file.
    pub(crate) is_file: bool,
    /// Whether it is the place of a file that nobody chose.
    pub(crate) is_unchosen: bool,
}

impl Multipart {
    /// A form whose content type has these parameters.
    pub(crate) fn new(parameters: &str, body: Incoming) -> Result<Multipart, ApiError> {
        let boundary = parameter(parameters, "boundary")
            .filter(|boundary| (1..=70).contains(&boundary.len()))
            .ok_or_else(|| broken("its content type names no boundary"))?;
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // The first delimiter may stand at the very beginning, without its line break.
        Ok(Multipart { body, buffer: b"\r\n".to_vec(), delimiter, ended: false })
    }

    /// The next part, once the last one has been read; `None` behind the last.
    pub(crate) async fn next(&mut self, first: bool) -> Result<Option<Part>, ApiError> {
        if first {
            let at = self.find_within(&self.delimiter.clone(), MAX_PREAMBLE_BYTES).await?;
            self.buffer.drain(..at);
        }
        self.buffer.drain(..self.delimiter.len());
        self.need(2).await?;
        if self.buffer.starts_with(b"--") {
            // The rest means nothing.
            while self.body.next().await?.is_some() {}
            return Ok(None);
        }
        let line = self.find_within(b"\r\n", MAX_HEADERS_BYTES).await?;
        if !self.buffer[..line].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(broken("a boundary does not end where it should"));
        }
        self.buffer.drain(..line);
        let end = self.find_within(b"\r\n\r\n", MAX_HEADERS_BYTES).await?;
        let headers = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        part(&headers).map(Some)
    }

    /// The next bytes of the part; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            if let Some(at) = find(&self.buffer, &self.delimiter) {
                return Ok((at > 0).then(|| self.buffer.drain(..at).collect()));
            }
            // What may be the beginning of a delimiter has to wait.
            let safe = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if safe > 0 {
                return Ok(Some(self.buffer.drain(..safe).collect()));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), ApiError> {
        match self.body.next().await? {
            Some(piece) => self.buffer.extend_from_slice(&piece),
            None if self.ended => return Err(broken("it ends before its last boundary")),
            None => self.ended = true,
        }
        Ok(())
    }

    async fn need(&mut self, bytes: usize) -> Result<(), ApiError> {
        while self.buffer.len() < bytes {
            self.more().await?;
        }
        Ok(())
    }

    async fn find_within(&mut self, what: &[u8], most: usize) -> Result<usize, ApiError> {
        loop {
            if let Some(at) = find(&self.buffer, what) {
                return Ok(at);
            }
            if self.buffer.len() > most {
                return Err(broken("what stands between its parts is too long"));
            }
            self.more().await?;
        }
    }
}

fn broken(message: &str) -> ApiError {
    ApiError::bad("invalid_form", format!("the form cannot be read: {message}"))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What a part's headers say.
fn part(headers: &str) -> Result<Part, ApiError> {
    let disposition = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.trim())
    });
    let parameters = disposition
        .and_then(|value| value.split_once(';'))
        .filter(|(kind, _)| kind.trim().eq_ignore_ascii_case("form-data"))
        .map(|(_, parameters)| parameters)
        .ok_or_else(|| broken("a part has no Content-Disposition of form-data"))?;
    let name = parameter(parameters, "name").ok_or_else(|| broken("a part has no name"))?;
    let plain = parameter(parameters, "filename");
    let called = plain.or_else(|| parameter(parameters, "filename*"));
    let is_unchosen = called.as_ref().is_some_and(String::is_empty);
    Ok(Part { name, is_file: called.is_some(), is_unchosen })
}

/// A parameter of a header, with or without quotes.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_matches([' ', '\t', ';']);
        let after = after.trim_start();
        let (value, behind) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind;
    }
}

/// A quoted text, from behind its first quote, and what follows its last.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            // Browsers leave backslashes alone, so that only these two can be meant.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::HeaderMap;
    use std::time::Duration;

    type Parts = Vec<(Part, Vec<u8>)>;

    /// Reads a form that comes in pieces of `size` bytes.
    fn read(form: &[u8], size: usize) -> Result<Parts, ApiError> {
        let pieces: Vec<_> = form
            .chunks(size)
            .map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)))
            .collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let minute = Duration::from_secs(60);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let body = Incoming::new(&HeaderMap::new(), body, 1 << 20, minute)?;
            let mut form = Multipart::new(" boundary=\"x-y\"", body)?;
            let mut parts = Parts::new();
            while let Some(part) = form.next(parts.is_empty()).await? {
                let mut content = Vec::new();
                while let Some(chunk) = form.chunk().await? {
                    content.extend(chunk);
                }
                parts.push((part, content));
            }
            Ok(parts)
        })
    }

    const FORM: &[u8] = b"--x-y\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\
        a \r\n--x- b\r\n--x-y  \r\ncontent-disposition: form-data; filename=\"a;\\\"=b\"; name=file\r\n\
        Content-Type: image/png\r\n\r\n\r\n--x\r\n\r\n--x-y\r\n\
        Content-Disposition: form-data; name=\"none\"\r\n\r\n\r\n--x-y--\r\nrest";

    #[test]
    fn a_form_is_the_same_however_it_is_cut() {
        for size in 1..=FORM.len() {
            let parts = read(FORM, size).unwrap();
            let part =
                |name: &str, is_file| Part { name: name.into(), is_file, is_unchosen: false };
            let wanted: Parts = vec![
                (part("prompt", false), b"a \r\n--x- b".to_vec()),
                (part("file", true), b"\r\n--x\r\n".to_vec()),
                (part("none", false), vec![]),
            ];
            assert_eq!(parts, wanted, "in pieces of {size}");
        }
    }

    #[test]
    fn a_broken_form_is_refused() {
        for cut in 0..FORM.len() - 6 {
            assert!(read(&FORM[..cut], 7).is_err(), "cut at {cut}");
        }
        let long = vec![b'a'; 100_000];
        let header = [b"--x-y\r\nContent-Disposition: ", &long[..]].concat();
        assert!(read(&header, 1000).unwrap_err().to_string().contains("too long"));
        assert!(read(&long, 1000).is_err());
        assert!(read(b"--x-y\r\nX: y\r\n\r\n\r\n--x-y--", 9).is_err());
        assert!(
            read(b"--x-yz\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x-y--", 9)
                .is_err()
        );
    }
}
