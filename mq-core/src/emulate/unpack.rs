//! The owner of the envelopes: unpacks them in commit order, confirming each message before it acks the envelope.

use crate::client::Client;
use crate::driver::Target;
use crate::error::{Error, Result};
use crate::message::Message;

pub(crate) async fn store(_client: &Client, _sends: Vec<(Target, Message)>) -> Result<()> {
    std::future::ready(Err(Error::unsupported("transactions are not emulated yet on this backend"))).await
}
