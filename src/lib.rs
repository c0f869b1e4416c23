//! One async messaging API.
