//! From text to [`Url`]. No error shows text of the URL: what looks like a host may be half a password.

use std::net::Ipv6Addr;

use super::{Host, MAX_HOSTS, MAX_KEYS, MAX_URL, Url, percent};
use crate::error::{Error, Result};
use crate::secret::Secret;

const ENCODE: &str = "write / ? # @ % in names and passwords as %2F %3F %23 %40 %25";

fn bad(part: &str) -> Error {
    Error::config(format!("the URL {part}; {ENCODE}"))
}

pub(super) fn url(text: &str) -> Result<Url> {
    if text.len() > MAX_URL {
        return Err(bad(&format!("has more than {MAX_URL} bytes")));
    }
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(bad("contains a blank or a control character"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad("has no scheme: it must look like scheme://host, for example memory://"));
    };
    if rest.contains('#') {
        return Err(bad("contains a bare `#`"));
    }
    let scheme = self::scheme(scheme)?;
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    if tail.contains('@') {
        return Err(bad("contains a bare `@` behind its hosts"));
    }
    let (userinfo, hosts) = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    let (username, password) = userinfo.map_or(Ok((None, None)), user)?;
    let (path, query) = tail.split_once('?').map_or((tail, None), |(p, q)| (p, Some(q)));
    let path = path.strip_prefix('/').map(|p| decoded("path", p)).transpose()?;
    let query = query.map_or(Ok(Vec::new()), pairs)?;
    Ok(Url { scheme, username, password, hosts: self::hosts(hosts)?, path, query })
}

fn scheme(text: &str) -> Result<String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'-');
    if !text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) || !text.bytes().all(good) {
        return Err(bad("does not begin with a scheme such as `memory`"));
    }
    Ok(text.to_ascii_lowercase())
}

fn user(text: &str) -> Result<(Option<String>, Option<Secret>)> {
    let (user, password) = text.split_once(':').map_or((text, None), |(u, p)| (u, Some(p)));
    let username = decoded("user name", user)?;
    let password = password.map(|p| decoded("password", p)).transpose()?;
    Ok(((!username.is_empty()).then_some(username), password.map(Secret::from)))
}

fn hosts(text: &str) -> Result<Vec<Host>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.split(',').count() > MAX_HOSTS {
        return Err(bad(&format!("has more than {MAX_HOSTS} hosts")));
    }
    text.split(',').map(host).collect()
}

fn host(text: &str) -> Result<Host> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((name, rest)) = rest.split_once(']') else {
            return Err(bad("has a bracket without its partner in a host"));
        };
        if name.parse::<Ipv6Addr>().is_err() {
            return Err(bad("has brackets around something that is not an IPv6 address"));
        }
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(self::port(port)?),
            None if rest.is_empty() => None,
            None => return Err(bad("has text between a bracket and its port")),
        };
        return Ok(Host { name: name.to_owned(), port });
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(n, p)| (n, Some(p)));
    if name.is_empty() {
        return Err(bad("has an empty host: hosts are separated by single commas"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return Err(bad("has a host with characters other than A-Z a-z 0-9 . - _"));
    }
    Ok(Host { name: name.to_owned(), port: port.map(self::port).transpose()? })
}

fn port(text: &str) -> Result<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(bad("has a port that is not a number from 1 to 65535")),
    }
}

fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.split('&').count() > MAX_KEYS {
        return Err(bad(&format!("has more than {MAX_KEYS} keys")));
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in text.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decoded("query", key)?;
        if key.is_empty() {
            return Err(bad("has an empty key in its query"));
        }
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(bad("has a key twice in its query; separate several values by commas"));
        }
        pairs.push((key, decoded("query", value)?));
    }
    Ok(pairs)
}

fn decoded(part: &str, text: &str) -> Result<String> {
    percent::decode(text)
        .ok_or_else(|| bad(&format!("has a {part} with a bad percent escape or bytes that are not UTF-8")))
}
