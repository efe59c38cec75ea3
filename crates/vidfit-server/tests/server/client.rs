//! A client that can do what a polite one would not.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The error's code, where the answer is an error of the usual form.
    pub fn code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        assert!(error["message"].as_str().is_some_and(|it| !it.is_empty()), "{json}");
        assert!(error["type"].is_string() && error.get("param").is_some(), "{json}");
        error["code"].as_str().unwrap().to_owned()
    }
}

/// Connects.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The beginning of a request, up to the empty line.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "Host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// Sends a request on a connection of its own, and reads the answer.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = connect(address);
    let length = body.len().to_string();
    let mut all = vec![("Connection", "close")];
    all.extend_from_slice(headers);
    if !body.is_empty() || method == "POST" {
        all.push(("Content-Length", &length));
    }
    stream.write_all(head(method, path, &all).as_bytes()).unwrap();
    // A server that answers early may not read to the end.
    let _ = stream.write_all(body);
    read(&mut stream)
}

/// Reads an answer up to its end.
pub fn read(stream: &mut impl Read) -> Answer {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(answer) = whole(&text, false) {
            return answer;
        }
        match stream.read(&mut piece) {
            Ok(0) => {
                return whole(&text, true)
                    .unwrap_or_else(|| panic!("cut: {:?}", String::from_utf8_lossy(&text)));
            }
            Ok(bytes) => text.extend_from_slice(&piece[..bytes]),
            // The server has closed with something of ours unread.
            Err(error)
                if error.kind() == std::io::ErrorKind::ConnectionReset && !text.is_empty() =>
            {
                return whole(&text, true).unwrap();
            }
            Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&text)),
        }
    }
}

fn whole(text: &[u8], ended: bool) -> Option<Answer> {
    let end = text.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&text[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: Vec<_> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let rest = &text[end + 4..];
    let header = |name: &str| headers.iter().find(|(it, _)| it == name).map(|(_, it)| it.as_str());
    let body = if header("transfer-encoding") == Some("chunked") {
        unchunked(rest)?
    } else {
        match header("content-length").map(|it| it.parse::<usize>().unwrap()) {
            Some(length) if rest.len() >= length => rest[..length].to_vec(),
            None if ended || status == 304 => rest.to_vec(),
            _ if ended => rest.to_vec(),
            _ => return None,
        }
    };
    Some(Answer { status, headers, body })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|it| it == b"\r\n")?;
        let length =
            usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}

/// A form of fields and files.
pub fn form(fields: &[(&str, &str)], files: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .bytes(),
        );
    }
    for (name, content) in files {
        let head = format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"../../x.png\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend(head.bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(b"--b--\r\n");
    ("multipart/form-data; boundary=b".into(), body)
}
