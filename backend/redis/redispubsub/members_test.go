package redispubsub_test

const memberURL = "BACKSTAY_REDIS_MEMBER_URL"

func beMember(string) {}
