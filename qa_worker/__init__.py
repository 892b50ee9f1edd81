"""VoiceNoob QA: grades the calls of voice agents, and loses none of them."""
