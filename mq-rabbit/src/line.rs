//! A connect that is given up takes its socket along.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Shuts the socket of a connect whose future is dropped. The client's own thread knows nothing of that, and would
/// wait for the peer's answer as long as the peer likes.
#[derive(Debug, Default)]
pub(crate) struct GivingUp {
    pub(crate) line: Arc<Line>,
    /// It came to its end, whichever.
    pub(crate) is_over: bool,
}

impl Drop for GivingUp {
    fn drop(&mut self) {
        self.line.release(self.is_over);
    }
}

/// The socket of a connect under way.
#[derive(Debug, Default)]
pub(crate) struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    socket: Option<TcpStream>,
    given_up: bool,
}

impl Line {
    /// # Errors
    /// It was given up before there was a socket.
    pub(crate) fn keep(&self, socket: TcpStream) -> std::io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.given_up {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        state.socket = Some(socket);
        Ok(())
    }

    fn release(&self, is_connected: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.given_up = true;
        if let (Some(socket), false) = (state.socket.take(), is_connected) {
            // The peer may have closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// The same socket once more, to shut it by.
#[cfg(unix)]
pub(crate) fn second_handle(socket: &impl std::os::fd::AsFd) -> std::io::Result<TcpStream> {
    socket.as_fd().try_clone_to_owned().map(TcpStream::from)
}

/// The same socket once more, to shut it by.
#[cfg(windows)]
pub(crate) fn second_handle(socket: &impl std::os::windows::io::AsSocket) -> std::io::Result<TcpStream> {
    socket.as_socket().try_clone_to_owned().map(TcpStream::from)
}
