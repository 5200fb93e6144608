//! This machine's energy as OpenMetrics, the one job that opens a socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use wattle_meter::backend::Subject;
use wattle_meter::export::Exposition;
use wattle_meter::{Factors, Meter};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::observer::Observer;

/// Where to serve what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Address and port.
    pub listen: SocketAddr,
    /// Root of the energy counters: `/sys`, or where a container has the host's.
    pub sysfs: PathBuf,
}

/// A client that is slower than this may ask again.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_REQUEST: usize = 8192;

/// Serves the page until the process ends; the observer is told its address.
///
/// # Errors
/// If the address cannot be listened at.
pub fn serve(options: &ServeOptions, env: &Env, observer: &mut dyn Observer) -> Result<()> {
    let mut config = env.meter_config();
    // Everything that runs here, where processor time must stand in for a counter.
    config.subject = Subject::Tree(1);
    config.roots.sys = options.sysfs.clone();
    let factors = config.factors.clone();
    let listener = TcpListener::bind(options.listen).map_err(|e| JobError::at(options.listen, e))?;
    let address = listener.local_addr().map_err(|e| JobError::at(options.listen, e))?;
    let meter = Meter::start(config);
    observer.note(&format!("http://{address}/metrics"));
    for stream in listener.incoming() {
        // A client that goes away is no reason to stop.
        let _ = stream.and_then(|stream| answer(stream, &meter, &factors));
        if observer.cancelled() {
            break;
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, meter: &Meter, factors: &Factors) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        match stream.read(&mut buffer)? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    let (status, kind, body) = match path(&request) {
        Some("/metrics") => {
            let snapshot = meter.snapshot();
            let components = meter.components();
            let page = Exposition {
                elapsed: snapshot.elapsed,
                components: &components,
                power: snapshot.power,
                factors,
            };
            ("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", page.text())
        }
        Some(_) => ("404 Not Found", "text/plain; charset=utf-8", "the page is /metrics\n".to_owned()),
        None => ("400 Bad Request", "text/plain; charset=utf-8", "expected GET /metrics\n".to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}

/// The path that a GET request asks for, without its query.
fn path(request: &[u8]) -> Option<&str> {
    let line = request.split(|&b| b == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (method == "GET" && target.starts_with('/')).then(|| target.split('?').next().unwrap_or(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_has_a_path() {
        assert_eq!(path(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), Some("/metrics"));
        for request in
            [&b"POST /metrics HTTP/1.1\r\n"[..], b"GET", b"", b"\xff\xfe /", b"GET metrics HTTP/1.1"]
        {
            assert_eq!(path(request), None);
        }
    }
}
