//! MQTT packets for both versions, without I/O: bytes in, [`Arrived`] out, bytes to send collected.

#[cfg(test)]
mod tests;

use super::settings::Version;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::event::{GenericEvent, TimerKind};
use mqtt_protocol_core::mqtt::connection::{Connection, ConnectionOptions, role};
use mqtt_protocol_core::mqtt::packet::{
    ContentType, CorrelationData, GenericPacket, GenericPacketTrait, MessageExpiryInterval, Packet,
    PayloadFormat, PayloadFormatIndicator, Property, Qos, RetainHandling, SessionExpiryInterval,
    SubEntry, SubOpts, UserProperty, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, MqttError, PubackReasonCode,
};
use std::time::Duration;

/// Longest packet the broker may send.
const MAX_PACKET_BYTES: u32 = 320 << 10;
/// Longest wait for the answer to a ping.
const PING_TIMEOUT_MS: u64 = 10_000;
/// Most acknowledged messages the broker may have under way to us.
const RECEIVE_MAXIMUM: u16 = 32;

/// What CONNECT says in both versions, whose builders share methods but no trait.
macro_rules! connect_packet {
    ($builder:expr, $hello:expr) => {{
        let mut packet = $builder
            .client_id($hello.client_id)?
            .keep_alive($hello.keep_alive_s)
            .will_message(
                $hello.will_topic,
                $hello.will_payload.to_vec(),
                Qos::AtLeastOnce,
                true,
            )?;
        if let Some(user) = $hello.user {
            packet = packet.user_name(user)?;
        }
        if let Some(password) = $hello.password {
            packet = packet.password(password.as_bytes().to_vec())?;
        }
        packet
    }};
}

/// The same for PUBLISH.
macro_rules! publish_packet {
    ($builder:expr, $message:expr, $packet_id:expr) => {
        $builder
            .topic_name($message.topic.as_str())?
            .qos(qos($message.qos))
            .retain($message.retained)
            .packet_id($packet_id)
            .payload($message.payload.as_slice())
            .build()?
    };
}

/// What CONNECT says.
#[derive(Clone, Debug)]
pub(super) struct Hello<'a> {
    pub(super) client_id: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) keep_alive_s: u16,
    pub(super) will_topic: &'a str,
    pub(super) will_payload: &'a [u8],
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retained: bool,
    /// Seconds after which the broker forgets it (MQTT 5).
    pub(super) expiry: Option<u32>,
    pub(super) media_type: &'static str,
    /// Version of the payload's schema, for payloads that have one (MQTT 5).
    pub(super) schema_version: Option<u32>,
    pub(super) correlation: Option<Vec<u8>>,
}

/// A message from the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retained: bool,
    /// Seconds that were left of its life when it came (MQTT 5).
    pub(super) expiry: Option<u32>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation: Option<Vec<u8>>,
}

/// What the broker says about a message it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It may take it later.
    Later(&'static str),
    /// It never will.
    Never(&'static str),
}

/// Something the broker said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// The connection stands.
    Connected,
    /// Subscriptions: how many of them the broker refused.
    Subscribed { refused: usize },
    /// A message was taken, or not.
    Acknowledged {
        packet_id: u16,
        refusal: Option<Refusal>,
    },
    /// A message came.
    Message(Message),
    /// The connection is over.
    Over(String),
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishFault {
    /// The broker has said that its packets are smaller.
    TooLarge,
    /// Too many messages wait for acknowledgement.
    Busy,
    /// The topic or a property is not valid.
    Invalid,
}

/// One connection's state. Each connection gets a new one: sessions do not outlive connections.
pub(super) struct Protocol {
    version: Version,
    connection: Connection<role::Client>,
    output: Vec<u8>,
    /// When the ping is due, and when its answer is overdue.
    ping: Option<Duration>,
    pong: Option<Duration>,
    over: Option<String>,
}

impl Protocol {
    pub(super) fn new(version: Version) -> Protocol {
        let wire = match version {
            Version::V5 => mqtt_protocol_core::mqtt::Version::V5_0,
            Version::V311 => mqtt_protocol_core::mqtt::Version::V3_1_1,
        };
        let options = ConnectionOptions::new()
            .maximum_packet_size_recv(MAX_PACKET_BYTES)
            .receive_maximum(RECEIVE_MAXIMUM);
        let mut connection = Connection::with_options(wire, options);
        connection.set_auto_pub_response(true);
        connection.set_pingresp_recv_timeout(PING_TIMEOUT_MS);
        Protocol {
            version,
            connection,
            output: Vec::new(),
            ping: None,
            pong: None,
            over: None,
        }
    }

    /// Bytes to send; the caller takes what it has sent off the front.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// When [`Protocol::tick`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.ping.into_iter().chain(self.pong).min()
    }

    pub(super) fn connect(&mut self, hello: &Hello<'_>, now: Duration) -> Result<(), MqttError> {
        let events = match self.version {
            Version::V5 => {
                let packet = connect_packet!(v5_0::Connect::builder().clean_start(true), hello);
                // Said in full: no command waits at the broker for an actuator that was away.
                let packet = packet.props(vec![SessionExpiryInterval::new(0)?.into()]);
                self.connection.checked_send(packet.build()?)
            }
            Version::V311 => {
                let builder = v3_1_1::Connect::builder().clean_session(true);
                self.connection
                    .checked_send(connect_packet!(builder, hello).build()?)
            }
        };
        self.handle(events, now);
        Ok(())
    }

    /// Subscribes; a filter marked `fresh` gets no retained messages (MQTT 5).
    pub(super) fn subscribe(
        &mut self,
        filters: &[(String, u8, bool)],
        now: Duration,
    ) -> Result<(), MqttError> {
        let mut entries = Vec::with_capacity(filters.len());
        for (filter, at_most, fresh) in filters {
            let mut options = SubOpts::new().set_qos(qos(*at_most));
            if self.version == Version::V5 {
                options = options.set_nl(true);
                if *fresh {
                    options = options.set_rh(RetainHandling::DoNotSendRetained);
                }
            }
            entries.push(SubEntry::new(filter.as_str(), options)?);
        }
        let packet_id = self.connection.acquire_packet_id()?;
        let events = match self.version {
            Version::V5 => {
                let packet = v5_0::Subscribe::builder()
                    .packet_id(packet_id)
                    .entries(entries)
                    .build()?;
                self.connection.checked_send(packet)
            }
            Version::V311 => {
                let packet = v3_1_1::Subscribe::builder()
                    .packet_id(packet_id)
                    .entries(entries)
                    .build()?;
                self.connection.checked_send(packet)
            }
        };
        self.handle(events, now);
        Ok(())
    }

    /// Gives filters up.
    pub(super) fn unsubscribe(
        &mut self,
        filters: &[String],
        now: Duration,
    ) -> Result<(), MqttError> {
        let packet_id = self.connection.acquire_packet_id()?;
        let entries = filters.iter().map(String::as_str);
        let events = match self.version {
            Version::V5 => {
                let packet = v5_0::Unsubscribe::builder().packet_id(packet_id);
                self.connection
                    .checked_send(packet.entries(entries)?.build()?)
            }
            Version::V311 => {
                let packet = v3_1_1::Unsubscribe::builder().packet_id(packet_id);
                self.connection
                    .checked_send(packet.entries(entries)?.build()?)
            }
        };
        self.handle(events, now);
        Ok(())
    }

    /// Sends `message`; returns the number its acknowledgement will bear, `None` at QoS 0.
    pub(super) fn publish(
        &mut self,
        message: &Publish,
        now: Duration,
    ) -> Result<Option<u16>, PublishFault> {
        if message.qos > 0 && self.connection.get_receive_maximum_vacancy_for_send() == Some(0) {
            return Err(PublishFault::Busy);
        }
        let packet_id = match message.qos {
            0 => None,
            _ => Some(
                self.connection
                    .acquire_packet_id()
                    .map_err(|_| PublishFault::Busy)?,
            ),
        };
        let sent = self.encode(message, packet_id);
        let fault = match sent {
            Ok(events) => match events.iter().find_map(error_of) {
                None => {
                    self.handle(events, now);
                    return Ok(packet_id);
                }
                Some(MqttError::PacketTooLarge) => PublishFault::TooLarge,
                Some(_) => PublishFault::Invalid,
            },
            Err(_) => PublishFault::Invalid,
        };
        if let Some(packet_id) = packet_id {
            let _ = self.connection.release_packet_id(packet_id);
        }
        Err(fault)
    }

    fn encode(
        &mut self,
        message: &Publish,
        packet_id: Option<u16>,
    ) -> Result<Vec<GenericEvent<u16>>, MqttError> {
        Ok(match self.version {
            Version::V5 => {
                let builder = v5_0::Publish::builder().props(properties(message)?);
                self.connection
                    .checked_send(publish_packet!(builder, message, packet_id))
            }
            Version::V311 => {
                let builder = v3_1_1::Publish::builder();
                self.connection
                    .checked_send(publish_packet!(builder, message, packet_id))
            }
        })
    }

    /// Says good-bye; the broker then keeps the will to itself.
    pub(super) fn disconnect(&mut self, now: Duration) {
        let events = match self.version {
            Version::V5 => match v5_0::Disconnect::builder().build() {
                Ok(packet) => self.connection.checked_send(packet),
                Err(_) => return,
            },
            Version::V311 => match v3_1_1::Disconnect::builder().build() {
                Ok(packet) => self.connection.checked_send(packet),
                Err(_) => return,
            },
        };
        self.handle(events, now);
    }

    /// Takes bytes from the broker.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Duration) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        let mut cursor = Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() && self.over.is_none() {
            let events = self.connection.recv(&mut cursor);
            arrived.extend(self.handle(events, now));
        }
        arrived.extend(self.over.take().map(Arrived::Over));
        arrived
    }

    /// Sends the ping that is due; says when the broker has fallen silent.
    pub(super) fn tick(&mut self, now: Duration) -> Option<Arrived> {
        if self.pong.is_some_and(|at| at <= now) {
            self.pong = None;
            return Some(Arrived::Over("the broker does not answer pings".to_owned()));
        }
        if self.ping.is_some_and(|at| at <= now) {
            self.ping = None;
            let events = self.connection.notify_timer_fired(TimerKind::PingreqSend);
            self.handle(events, now);
        }
        self.over.take().map(Arrived::Over)
    }

    fn handle(&mut self, events: Vec<GenericEvent<u16>>, now: Duration) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for event in events {
            match event {
                GenericEvent::NotifyPacketReceived(packet) => arrived.extend(self.packet(packet)),
                GenericEvent::RequestSendPacket { packet, .. } => {
                    self.output.extend(packet.to_continuous_buffer());
                }
                GenericEvent::RequestTimerReset { kind, duration_ms } => {
                    let at = now.saturating_add(Duration::from_millis(duration_ms));
                    self.set_timer(kind, Some(at));
                }
                GenericEvent::RequestTimerCancel(kind) => self.set_timer(kind, None),
                GenericEvent::NotifyError(error) => {
                    self.over = Some(format!("the broker broke the protocol: {error}"));
                }
                GenericEvent::RequestClose => {
                    self.over
                        .get_or_insert_with(|| "the connection must be closed".to_owned());
                }
                GenericEvent::NotifyPacketIdReleased(_) => {}
            }
        }
        arrived
    }

    fn set_timer(&mut self, kind: TimerKind, at: Option<Duration>) {
        match kind {
            TimerKind::PingreqSend => self.ping = at,
            // A second ping sent meanwhile does not put off the first one's answer.
            TimerKind::PingrespRecv => self.pong = at.and(self.pong.or(at)),
            TimerKind::PingreqRecv => {}
        }
    }

    fn packet(&mut self, packet: Packet) -> Option<Arrived> {
        Some(match packet {
            GenericPacket::V5_0Connack(packet) => match packet.reason_code() {
                ConnectReasonCode::Success => Arrived::Connected,
                code => Arrived::Over(refused(code, &reason_string(packet.props()))),
            },
            GenericPacket::V3_1_1Connack(packet) => match packet.return_code() {
                ConnectReturnCode::Accepted => Arrived::Connected,
                code => Arrived::Over(refused(code, "")),
            },
            GenericPacket::V5_0Suback(packet) => {
                subscribed(packet.reason_codes().iter().map(|code| *code as u8))
            }
            GenericPacket::V3_1_1Suback(packet) => {
                subscribed(packet.return_codes().iter().map(|code| *code as u8))
            }
            GenericPacket::V5_0Puback(packet) => Arrived::Acknowledged {
                packet_id: packet.packet_id(),
                refusal: packet.reason_code().and_then(refusal),
            },
            GenericPacket::V3_1_1Puback(packet) => Arrived::Acknowledged {
                packet_id: packet.packet_id(),
                refusal: None,
            },
            GenericPacket::V5_0Publish(packet) => {
                let mut message = Message {
                    topic: packet.topic_name().to_owned(),
                    payload: packet.payload().as_slice().to_vec(),
                    retained: packet.retain(),
                    ..Message::default()
                };
                for property in packet.props() {
                    match property {
                        Property::MessageExpiryInterval(expiry) => {
                            message.expiry = Some(expiry.val());
                        }
                        Property::ResponseTopic(topic) => {
                            message.response_topic = Some(topic.val().to_owned());
                        }
                        Property::CorrelationData(data) => {
                            message.correlation = Some(data.val().to_vec());
                        }
                        _ => {}
                    }
                }
                Arrived::Message(message)
            }
            GenericPacket::V3_1_1Publish(packet) => Arrived::Message(Message {
                topic: packet.topic_name().to_owned(),
                payload: packet.payload().as_slice().to_vec(),
                retained: packet.retain(),
                ..Message::default()
            }),
            GenericPacket::V5_0Disconnect(packet) => {
                let code = packet
                    .reason_code()
                    .map_or_else(String::new, |code| format!(": {code:?}"));
                Arrived::Over(format!("the broker ended the connection{code}"))
            }
            _ => return None,
        })
    }
}

/// Codes from 0x80 on are refusals in both versions.
fn subscribed(codes: impl Iterator<Item = u8>) -> Arrived {
    Arrived::Subscribed {
        refused: codes.filter(|code| *code >= 0x80).count(),
    }
}

fn qos(level: u8) -> Qos {
    if level == 0 {
        Qos::AtMostOnce
    } else {
        Qos::AtLeastOnce
    }
}

fn properties(message: &Publish) -> Result<Vec<Property>, MqttError> {
    let format = match message.media_type {
        "image/jpeg" | "application/octet-stream" => PayloadFormat::Binary,
        _ => PayloadFormat::String,
    };
    let mut properties = vec![
        PayloadFormatIndicator::new(format)?.into(),
        ContentType::new(message.media_type)?.into(),
    ];
    if let Some(seconds) = message.expiry {
        properties.push(MessageExpiryInterval::new(seconds)?.into());
    }
    if let Some(version) = message.schema_version {
        properties.push(UserProperty::new("schema-version", version.to_string())?.into());
    }
    if let Some(data) = &message.correlation {
        properties.push(CorrelationData::new(data.clone())?.into());
    }
    Ok(properties)
}

fn error_of(event: &GenericEvent<u16>) -> Option<MqttError> {
    match event {
        GenericEvent::NotifyError(error) => Some(*error),
        _ => None,
    }
}

fn reason_string(properties: &[Property]) -> String {
    properties
        .iter()
        .find_map(|property| match property {
            Property::ReasonString(reason) => Some(format!(" ({})", reason.val())),
            _ => None,
        })
        .unwrap_or_default()
}

fn refused(code: impl std::fmt::Debug, reason: &str) -> String {
    format!(
        "the broker refused the connection: {code:?}{reason}; check user, password and client id"
    )
}

fn refusal(code: PubackReasonCode) -> Option<Refusal> {
    Some(match code {
        PubackReasonCode::Success | PubackReasonCode::NoMatchingSubscribers => return None,
        PubackReasonCode::TopicNameInvalid => Refusal::Never("it takes no such topic"),
        PubackReasonCode::PayloadFormatInvalid => Refusal::Never("it takes no such payload"),
        PubackReasonCode::NotAuthorized => Refusal::Later("this user may not publish there"),
        PubackReasonCode::QuotaExceeded => Refusal::Later("its quota is used up"),
        _ => Refusal::Later("it gives no usable reason"),
    })
}
