//! Numbers that name things: indexes into a [`crate::Policy`] and ids given out while running.

use serde::{Deserialize, Serialize};

macro_rules! indexes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(
            /// Position in the policy's table.
            pub u16,
        );

        impl $name {
            /// The position as an array index.
            pub fn get(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(
            /// The number; given out once in the life of a [`crate::State`].
            pub u64,
        );
    )*};
}

indexes! {
    /// A pin of the policy.
    PinIndex;
    /// A zone of the policy.
    ZoneIndex;
    /// A topic of the policy.
    TopicIndex;
    /// A packet of the policy.
    PacketIndex;
    /// A hook of the policy.
    HookIndex;
    /// A rule of the policy.
    RuleIndex;
    /// An action of the policy; all actions of all rules stand in one table.
    ActionIndex;
    /// A permission line of the policy.
    PermissionIndex;
}

ids! {
    /// One run of a rule and the event announced by it.
    EventId;
    /// A picture that was asked for.
    LookId;
    /// A question put to a model.
    QuestionId;
    /// An action handed out for execution.
    ActId;
    /// An action that waits for a person.
    RequestId;
    /// A hook called before or after an action.
    CallId;
}
