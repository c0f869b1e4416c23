//! The suite on an outside backend: reached by its URL, through the facade's registry.

use mq_conformance::{Harness, Patience, Setup};
use outside_backend::{Server, backend};

fn main() -> std::process::ExitCode {
    let harness = Harness::new("outside", || async {
        let server = Server::start().map_err(|e| e.to_string())?;
        let [cut, stall, resume] = [server.clone(), server.clone(), server.clone()];
        Ok(Setup::url(mq::registry().with(backend()), server.url())
            .with_disconnect(move || cut.cut())
            .with_stall(move || stall.stall(), move || resume.resume())
            .with_restart(move || server.restart()))
    });
    mq_conformance::run(harness.patience(Patience::local()).virtual_time().own_broker())
}
