create schema cap;
create table cap.published (
    "Id" bigint primary key not null,
    "Version" varchar(20) not null,
    "Name" varchar(200) not null,
    "Content" text null,
    "Retries" int not null,
    "Added" timestamp not null,
    "ExpiresAt" timestamp null,
    "StatusName" varchar(50) not null
);
