//! The terminal as a sheet that is drawn anew.

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType};
use crossterm::{cursor, execute, queue};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The whole terminal. Dropping it gives back what was there before.
pub struct Screen {
    _private: (),
}

/// Why a wait is over.
pub enum Wake {
    /// The time has come.
    Due,
    /// The terminal has another size.
    Resized,
    /// The user has seen enough.
    Quit,
}

impl Screen {
    /// Takes the terminal.
    pub fn enter() -> io::Result<Screen> {
        terminal::enable_raw_mode()?;
        // From here on, dropping gives it back.
        let screen = Screen { _private: () };
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Draws lines, cut to the terminal's size, over those that were there.
    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        let mut out = io::stdout();
        for (row, line) in (0..rows).zip(lines) {
            let line: String = line.chars().take(columns.into()).collect();
            queue!(out, cursor::MoveTo(0, row), Clear(ClearType::CurrentLine), Print(line))?;
        }
        if lines.len() < rows.into() {
            queue!(out, cursor::MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
        }
        out.flush()
    }

    /// Waits for the time, the user, or `stop`.
    pub fn wait(&self, time: Duration, stop: &AtomicBool) -> io::Result<Wake> {
        /// How long a signal may go unnoticed.
        const GLANCE: Duration = Duration::from_millis(100);
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if stop.load(Ordering::Relaxed) {
                return Ok(Wake::Quit);
            }
            if left.is_zero() {
                return Ok(Wake::Due);
            }
            if !event::poll(left.min(GLANCE))? {
                continue;
            }
            match event::read()? {
                Event::Resize(..) => return Ok(Wake::Resized),
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(Wake::Quit),
                    // Without its meaning in a raw terminal.
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                        return Ok(Wake::Quit);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}
