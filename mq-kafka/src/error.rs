//! librdkafka's errors as the SDK's: one pure table.

use mq_core::{Error, Fate, Kind, Status};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The name of the backend in errors and logs.
pub(crate) const BACKEND: &str = "kafka";

/// What a caller would do about a code, and what became of a message that was on its way.
pub(crate) fn classify(code: Code) -> (Kind, Status, Fate) {
    use Fate::{Rejected, Unknown};
    use Status::{Permanent, Temporary};
    if let Some(kind) = refusal(code) {
        return (kind, Permanent, Rejected);
    }
    match code {
        Code::MessageTimedOut | Code::TimedOutQueue | Code::OperationTimedOut | Code::RequestTimedOut => {
            (Kind::Timeout, Temporary, Unknown)
        }
        Code::QueueFull | Code::ThrottlingQuotaExceeded => (Kind::RateLimited, Temporary, Rejected),
        Code::NotEnoughReplicas => (Kind::Disconnected, Temporary, Rejected),
        code if passes(code) => (Kind::Disconnected, Temporary, Unknown),
        _ => (Kind::Unexpected, Permanent, Unknown),
    }
}

/// Why nothing was done, where trying again would not help.
fn refusal(code: Code) -> Option<Kind> {
    Some(match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => Kind::TooLarge,
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId => Kind::NotFound,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Kind::PermissionDenied,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL => Kind::Unauthenticated,
        Code::InvalidMessage | Code::InvalidRecord | Code::InvalidTimestamp | Code::PolicyViolation => {
            Kind::InvalidMessage
        }
        Code::TopicAlreadyExists => Kind::AlreadyExists,
        Code::InvalidTopic
        | Code::InvalidConfig
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::InvalidGroupId
        | Code::InvalidTransactionTimeout
        | Code::InvalidArgument => Kind::ConfigInvalid,
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::NotImplemented => Kind::Unsupported,
        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::FencedInstanceId
        | Code::UnknownMemberId
        | Code::IllegalGeneration
        | Code::AssignmentLost => Kind::Fenced,
        _ => return None,
    })
}

/// True for what a later connection, leader or coordinator may do, and an earlier one may have done.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::PurgeQueue
            | Code::PurgeInflight
            | Code::NotEnoughReplicasAfterAppend
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::BrokerDestroy
            | Code::DestroyBroker
            | Code::NetworkException
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::WaitingForCoordinator
            | Code::RebalanceInProgress
            | Code::Retry
            | Code::Fatal
            | Code::OutOfOrderSequenceNumber
            | Code::UnknownProducerId
            | Code::ConcurrentTransactions
    )
}

/// The code behind an error, where there is one.
pub(crate) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(e) => Some(e.code()),
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// What failed, as one error; the native one stays below it.
pub(crate) fn of(doing: &str, error: KafkaError) -> Error {
    let error = without_value(error);
    let (kind, status, fate) = match (&error, code_of(&error)) {
        (_, Some(code)) => classify(code),
        (KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_), None) => {
            (Kind::ConfigInvalid, Status::Permanent, Fate::Rejected)
        }
        (KafkaError::Canceled, None) => (Kind::Disconnected, Status::Temporary, Fate::Unknown),
        _ => (Kind::Unexpected, Status::Permanent, Fate::Unknown),
    };
    Error::new(kind, format!("{doing}: {}", text(&error)))
        .with_status(status)
        .with_fate(fate)
        .with_backend(BACKEND)
        .with_source(error)
}

/// As [`of`], from a bare code.
pub(crate) fn of_code(doing: &str, code: Code) -> Error {
    of(doing, KafkaError::Global(code))
}

/// A configuration error quotes the value that was refused, which may be a secret: only the key is kept.
fn without_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(code, why, key, value) if !value.is_empty() => {
            KafkaError::ClientConfig(code, why.replace(&value, "***"), key, "***".to_owned())
        }
        other => other,
    }
}

/// The words of an error without its wrapping.
fn text(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("the property `{key}` was refused: {why}"),
        KafkaError::ClientCreation(why) => why.clone(),
        other => code_of(other).map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_perhaps_stored_is_unknown() {
        for code in
            [Code::MessageTimedOut, Code::PurgeInflight, Code::BrokerTransportFailure, Code::RequestTimedOut]
        {
            assert_eq!(classify(code).2, Fate::Unknown, "{code:?}");
        }
        for code in
            [Code::QueueFull, Code::MessageSizeTooLarge, Code::UnknownTopic, Code::TopicAuthorizationFailed]
        {
            assert_eq!(classify(code).2, Fate::Rejected, "{code:?}");
        }
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let mut config = rdkafka::ClientConfig::new();
        config.set("acks", "hunter2");
        let refused = config.create_native_config().map(drop).unwrap_err();
        let error = of("connect", refused);
        let cause = std::error::Error::source(&error).expect("the native error stays below");
        let shown = format!("{error} {error:?} {cause} {cause:?}");
        assert!(shown.contains("refused") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn an_administrative_call_that_was_cut_off_is_tried_again() {
        let cut = of("declare", KafkaError::AdminOp(Code::BrokerTransportFailure));
        assert_eq!((cut.kind(), cut.status()), (Kind::Disconnected, Status::Temporary));
    }

    #[test]
    fn kinds() {
        let table = [
            (Code::UnknownTopicOrPartition, Kind::NotFound),
            (Code::SaslAuthenticationFailed, Kind::Unauthenticated),
            (Code::GroupAuthorizationFailed, Kind::PermissionDenied),
            (Code::InvalidProducerEpoch, Kind::Fenced),
            (Code::QueueFull, Kind::RateLimited),
            (Code::MessageTimedOut, Kind::Timeout),
            (Code::AllBrokersDown, Kind::Disconnected),
            (Code::InvalidConfig, Kind::ConfigInvalid),
        ];
        for (code, kind) in table {
            assert_eq!(of_code("x", code).kind(), kind, "{code:?}");
        }
    }

    #[test]
    fn a_refused_property_shows_its_key_and_not_its_value() {
        let refused = rdkafka::ClientConfig::new()
            .set("ssl.ca.location", "sesame")
            .set("sasl.passwordx", "sesame")
            .create_native_config();
        let Err(error) = refused else { panic!("the key is unknown") };
        let shown = of("connect", error);
        assert!(!format!("{shown}").contains("sesame"), "{shown}");
    }
}
