//! Connections: how many, and how slow they may be.

use crate::http::ApiError;
use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

/// Most bytes of a request's line and headers.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Time that connections get to end once the server is to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// What connections are held to.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For the headers of a request, and between two requests.
    pub(crate) headers: Duration,
    /// For a client to take the next bytes of an answer.
    pub(crate) stall: Duration,
    /// Most connections at a time.
    pub(crate) connections: usize,
}

/// Answers connections until the server is to end.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    mut ending: watch::Receiver<bool>,
) {
    let free = Arc::new(Semaphore::new(patience.connections));
    // Those who are sent away are not many either.
    let refusals = Arc::new(Semaphore::new(patience.connections.max(16)));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = is_true(&mut ending) => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Events are small, and wanted at once.
        let _ = stream.set_nodelay(true);
        match free.clone().try_acquire_owned() {
            Ok(permit) => {
                let (router, ending) = (router.clone(), ending.clone());
                open.spawn(async move {
                    let _permit = permit;
                    serve(stream, router, patience, ending).await;
                });
            }
            Err(_) => {
                if let Ok(permit) = refusals.clone().try_acquire_owned() {
                    open.spawn(async move {
                        let _permit = permit;
                        let _ = timeout(Duration::from_secs(2), refuse(stream)).await;
                    });
                }
            }
        }
    }
    drop(listener);
    let _ = timeout(FAREWELL, async { while open.join_next().await.is_some() {} }).await;
}

async fn serve(
    stream: TcpStream,
    router: Router,
    patience: Patience,
    mut ending: watch::Receiver<bool>,
) {
    let stream = TokioIo::new(Impatient::new(stream, patience.stall));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.headers)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(stream, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = is_true(&mut ending) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Waits until a flag is true, or there is nobody left to set it.
pub(crate) async fn is_true(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|flag| *flag).await;
}

/// Sends a client away: too many are here.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let message = "too many connections are open: try again in a moment";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let error = ApiError::new(status, "too_many_connections", message).into_response();
    let body = http_body_util::BodyExt::collect(error.into_body()).await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Retry-After: 2\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    // Were the request left unread, closing would take our answer back.
    let mut unread = [0; 4096];
    while tokio::io::AsyncReadExt::read(&mut stream, &mut unread).await? > 0 {}
    Ok(())
}

/// A stream whose writes fail once the other side has not taken anything for a while.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    give_up: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration) -> Impatient {
        Impatient { stream, patience, give_up: None }
    }

    /// Passes on what a write came to, unless it has waited for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.give_up = None;
            return written;
        }
        let until = Instant::now() + self.patience;
        let give_up = self.give_up.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(give_up.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, shut)
    }
}
